"""Optimizers for the built-in recipes, by the names that a spec uses.

What an update needs before it can be made decides how early an exchange of gradients may let it happen:

| optimizer | an update of one parameter needs |
|---|---|
| sgd, adamw (torch's own) | that parameter's gradient, and element by element no more than that element's |
| lars, lamb | that parameter's gradient, whole: its norm, and that of the update, set the length of the step |
| any of them behind clipping by global norm, or LAMB with the norm of all gradients | every gradient |

So updates of the first two rows can wait for each layer's next forward pass, one by one; those of the last cannot.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lockstep_worker.recipe import Recipe

OPTIMIZERS = ("sgd", "adamw", "lars", "lamb")


def build(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of ``model``; ``ValueError`` for a name that there is not.

    Its learning rate is to be set before each step (``Recipe.learning_rate_at``). sgd decays every parameter, as
    torch's does by itself; the others leave out biases and normalisation.
    """
    rate, decay = recipe.learning_rate, recipe.weight_decay
    betas = (recipe.momentum, recipe.beta2)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameter_groups(model, decay), lr=rate, betas=betas)
    if recipe.optimizer == "lars":
        from lockstep_worker.optimizers.lars import LARS

        return LARS(
            parameter_groups(model, decay),
            lr=rate,
            momentum=recipe.momentum,
            trust_coefficient=recipe.trust_coefficient,
        )
    if recipe.optimizer == "lamb":
        from lockstep_worker.optimizers.lamb import LAMB

        return LAMB(parameter_groups(model, decay), lr=rate, betas=betas)
    raise ValueError(f"there is no optimizer {recipe.optimizer!r}; use sgd, adamw, lars or lamb")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels, with decay; then what has one dimension or none, without, and not adapted.

    Biases and the scales and shifts of normalisation are few and near 0 or 1: a decay would draw them away from there,
    and a step in proportion to their norm would be no step for a bias of 0. ``adapt`` is LARS' and LAMB's own key.
    """
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay, "adapt": True},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]
