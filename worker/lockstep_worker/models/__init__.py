"""Models for the built-in recipes, by the names that a spec uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from lockstep_worker.recipe import GPTSizes

MODELS = ("digits-cnn", "digits-mlp", "resnet50", "vgg16", "googlenet", "alexnet", "gpt")


def build(  # noqa: PLR0911 - one a model
    name: str,
    *,
    classes: int = 1000,
    gpt: GPTSizes | None = None,
    arguments: Mapping[str, Any] | None = None,
    path: str | None = None,
) -> nn.Module:
    """A model with fresh parameters, from torch's random state; ``ValueError`` for a name that there is not.

    ``classes`` is for the models of ImageNet's images, ``gpt`` for the GPT; each is the published model, or the small
    one, by default. The size of the images is no argument: all take any, from a smallest on that their functions name.
    ``arguments`` and ``path`` are for a function of the user's own, ``module:function`` (``models.own``).
    """
    if ":" in name:
        from lockstep_worker.models.own import own_model

        return own_model(name, arguments or {}, path)
    if name == "digits-cnn":
        from lockstep_worker.models.digits import cnn

        return cnn()
    if name == "digits-mlp":
        from lockstep_worker.models.digits import mlp

        return mlp()
    if name == "resnet50":
        from lockstep_worker.models.resnet import resnet50

        return resnet50(classes)
    if name == "vgg16":
        from lockstep_worker.models.vgg import vgg16

        return vgg16(classes)
    if name == "googlenet":
        from lockstep_worker.models.googlenet import googlenet

        return googlenet(classes)
    if name == "alexnet":
        from lockstep_worker.models.alexnet import alexnet

        return alexnet(classes)
    if name == "gpt":
        from lockstep_worker.models.gpt import GPT

        return GPT(**asdict(gpt or GPTSizes()))
    raise ValueError(f"there is no model {name!r}; use {', '.join(MODELS[:-1])} or {MODELS[-1]}")
