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


def misfit(thing: Any, state: Any) -> str | None:  # noqa: ANN401
    """Which parameters or buffers of a module are others than those in ``state``; None: it is no module, or none are.

    The first one is named, the others are counted.
    """
    if not isinstance(thing, nn.Module) or not isinstance(state, dict):
        return None
    here = {name: tuple(one.shape) for name, one in thing.state_dict().items() if isinstance(one, Tensor)}
    saved = {name: tuple(one.shape) for name, one in state.items() if isinstance(one, Tensor)}
    found = [
        f"{name} is {_shape(saved[name])} in it, and {_shape(here[name])} here"
        if name in saved and name in here
        else f"it has {name}, {_shape(saved[name])}, which the model has not"
        if name in saved
        else f"it has no {name}, which the model has, {_shape(here[name])}"
        for name in [*here, *(name for name in saved if name not in here)]
        if here.get(name) != saved.get(name)
    ]
    if not found:
        return None
    return found[0] + (f" (and {len(found) - 1} more differ)" if len(found) > 1 else "")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts an optimizer's state back, into the very groups that it has.

    torch (2.13) would make new ones, and a scheduler that was made for the optimizer inside a distributed one would
    go on to set the learning rate of the old ones.
    """
    groups = optimizer.param_groups
    known = [set(group) for group in groups]
    try:
        optimizer.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"it was saved by another kind of optimizer, which has no {error}") from error
    # torch (2.13) takes the options of another kind as well, and fails in the first step for want of one of its own.
    lacking = {key for keys, loaded in zip(known, optimizer.param_groups) for key in keys - set(loaded)}  # noqa: B905
    if lacking:
        raise ValueError(f"it was saved by another kind of optimizer, which has no {', '.join(sorted(lacking))}")
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
