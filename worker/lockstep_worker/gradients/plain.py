"""The given optimizer's own mathematics, without what is ours or torch's around its ``step()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


def plain_step(made: type, ours: type) -> Callable[[Any], Any]:
    """The step of the class that ``made`` has behind ``ours``, without what torch wraps around it."""
    base = made.__mro__[made.__mro__.index(ours) + 1]
    step: Any = base.step  # type: ignore[attr-defined]
    return step.__wrapped__ if getattr(step, "hooked", False) else step  # type: ignore[no-any-return]


def update(optimizer: Optimizer, groups: list[dict[str, Any]], step: Callable[[Any], Any]) -> None:
    """One ``step`` on these groups alone.

    It is made on a shadow of the optimizer: another thread's scheduler finds the groups that it knows in the optimizer
    itself. What the step assigns to the optimizer, and not within its state, is carried over; its groups never are.
    """
    shadow = object.__new__(type(optimizer))
    before = {**optimizer.__dict__, "param_groups": groups}
    shadow.__dict__.update(before)
    step(shadow)
    changed = {name: value for name, value in shadow.__dict__.items() if before.get(name, before) is not value}
    changed.pop("param_groups", None)
    optimizer.__dict__.update(changed)
