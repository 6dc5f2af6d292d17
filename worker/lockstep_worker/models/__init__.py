"""Models for the built-in recipes, by the names that a spec uses."""

from __future__ import annotations

from torch import nn


def build(name: str) -> nn.Module:
    """A model with fresh parameters, from torch's random state; ``ValueError`` for a name that there is not."""
    if name == "digits-cnn":
        from lockstep_worker.models.digits import cnn

        return cnn()
    if name == "digits-mlp":
        from lockstep_worker.models.digits import mlp

        return mlp()
    if name == "resnet50":
        from lockstep_worker.models.resnet import resnet50

        return resnet50()
    raise ValueError(f"there is no model {name!r}; use digits-cnn, digits-mlp or resnet50")
