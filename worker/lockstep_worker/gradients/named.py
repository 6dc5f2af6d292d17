"""The parameters of an optimizer by name, as all ranks and a recorded tuning have to have them alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lockstep_worker.gradients import guards
from lockstep_worker.gradients.dtypes import dtype_name
from lockstep_worker.gradients.errors import GradientError


def names_of(optimizer: Optimizer, named_parameters: Iterable[tuple[str, Tensor]] | None) -> list[tuple[str, Tensor]]:
    """The optimizer's parameters with their names, in its own order. Raises ``GradientError`` as Horovod would."""
    every = [one for group in optimizer.param_groups for one in group["params"]]
    if named_parameters is None:
        return [
            (f"group.{group}.{place}", one)
            for group, found in enumerate(optimizer.param_groups)
            for place, one in enumerate(found["params"])
        ]
    named = list(named_parameters)
    names = [name for name, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GradientError(f"named_parameters has names more than once: {', '.join(twice)}")
    known = {id(one): name for name, one in named}
    unnamed = [tuple(one.shape) for one in every if id(one) not in known]
    if unnamed:
        raise GradientError(f"parameters of the optimizer are not in named_parameters; their shapes: {unnamed}")
    return [(known[id(one)], one) for one in every]


def describe(names: Sequence[str], parameters: Sequence[Tensor]) -> list[list[Any]]:
    """Name, shape, strides and dtype of each, in plain values."""
    with guards.untouched():
        return [
            [name, list(one.shape), list(one.stride()), dtype_name(one.dtype)]
            for name, one in zip(names, parameters)  # noqa: B905 - Python 3.9
        ]
