"""How a batch is computed with: in bfloat16, with channels last, in parts one after the other; as the recipe says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lockstep_worker.recipe import Recipe

_IMAGES = 4
"""Dimensions of a batch of images."""


def autocast(recipe: Recipe) -> AbstractContextManager[object]:
    """Within it, what torch's autocast for CPUs computes in bfloat16 is; parameters and gradients stay float32."""
    return torch.autocast("cpu", torch.bfloat16) if recipe.precision == "bf16" else nullcontext()


def laid_out(inputs: Tensor, recipe: Recipe) -> Tensor:
    """Images as the model shall see them: with ``channels_last`` the channels of a pixel side by side in memory.

    What is computed of them follows, layer by layer. Parameters and their gradients stay contiguous, as Horovod needs
    them.
    """
    if recipe.channels_last and inputs.dim() == _IMAGES:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


def parts(inputs: Tensor, targets: Tensor, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in the ``accumulate`` equal parts that are computed one after the other."""
    size = -(-len(inputs) // recipe.accumulate)
    for begin in range(0, len(inputs), size):
        yield laid_out(inputs[begin : begin + size], recipe), targets[begin : begin + size]


def scored(model: nn.Module, inputs: Tensor, targets: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The model's scores in float32 and the answers, one a row: of texts, each position's is one.

    (n, ..., classes), (n, ...) -> (m, classes), (m,).
    """
    with autocast(recipe):
        scores = model(inputs)
    return scores.float().flatten(0, -2), targets.flatten()


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor, recipe: Recipe) -> Tensor:
    """A part's share of its batch's mean loss: the parts' losses and gradients add up to the batch's."""
    return cross_entropy(*scored(model, inputs, targets, recipe)) / recipe.accumulate
