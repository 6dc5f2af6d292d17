"""``put``: a saved state back into the object that it is of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def put(thing: Any, state: Any) -> None:  # noqa: ANN401 - whatever has a state
    """``state`` into ``thing``, by its ``load_state_dict``, and raises what that raises."""
    if isinstance(thing, nn.Module):
        thing.load_state_dict(state)
        return
    # A module copies; others would keep the memory of the whole file alive by a part of it.
    own = _cloned(state)
    if isinstance(thing, torch.optim.Optimizer):
        _load(thing, own)
    else:
        thing.load_state_dict(own)


def _load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts an optimizer's state back, into the very groups that it has.

    torch (2.13) would make new ones, and a scheduler that was made for the optimizer inside a distributed one would
    go on to set the learning rate of the old ones.
    """
    groups = optimizer.param_groups
    optimizer.load_state_dict(state)
    for group, loaded in zip(groups, optimizer.param_groups):  # noqa: B905 - Python 3.9
        group.clear()
        group.update(loaded)
    optimizer.param_groups = groups


def _cloned(state: Any) -> Any:  # noqa: ANN401 - a nested state
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _cloned(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_cloned(one) for one in state)
    return state
