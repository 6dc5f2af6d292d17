"""``Deferral``: an update that is sealed by ``step()`` and done parameter by parameter, when each is used again.

Sealed are the hyper-parameters of that moment and the gradients that are on their way. A parameter waits, guarded, for
its own gradient; whoever touches it first does its update, together with all others whose gradients are there by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lockstep_worker.gradients import guards
from lockstep_worker.gradients.entry import Entry
from lockstep_worker.gradients.reducer import Reducer, Slot

SEPARABLE = {
    "torch.optim": (
        "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Rprop", "ASGD",
    ),
    "lockstep_worker.optimizers": ("LARS", "LAMB"),
}  # fmt: skip
"""Optimizers in which a parameter's update needs no other parameter's gradient, by package (torch 2.13)."""


class Deferral:
    """The one sealed update of an optimizer. ``update(groups)`` does the optimizer's mathematics on these groups."""

    def __init__(self, reducer: Reducer, update: Callable[[list[dict[str, Any]]], None]) -> None:
        self._reducer = reducer
        self._update = update
        self._pending: dict[int, Slot] = {}
        """By the parameter's id."""
        self._groups: list[dict[str, Any]] = []
        self._group_of: dict[int, int] = {}
        self._entry = Entry(self.complete)
        self._lock = threading.RLock()

    @property
    def pending(self) -> bool:
        """Whether a sealed update is not done yet."""
        return self._reducer.sealed

    def seal(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Seals the update of what the reducer has flushed, with these groups' hyper-parameters as they are now."""
        groups = list(groups)
        self._groups = [{name: _copy(value) for name, value in group.items() if name != "params"} for group in groups]
        self._group_of = {id(one): index for index, group in enumerate(groups) for one in group["params"]}
        self._pending = {id(slot.parameter): slot for slot in self._reducer.slots}
        self._reducer.sealed = True
        for slot in self._reducer.slots:
            guards.guard(slot.parameter, self._touched)
            guards.guard(slot.view, self._gradient_touched(slot.parameter))
        self._entry.watch(slot.parameter for slot in self._reducer.slots)

    def complete(self, seconds: float | None = None) -> None:
        """Does all of the update that is not done; sleeps until its gradients are there (``TimeoutError``)."""
        with self._lock:
            if self._reducer.sealed:
                if self._pending:
                    self._reducer.wait(list(self._pending.values()), seconds)
                    self._apply(list(self._pending.values()))
                self._entry.leave()
                self._reducer.end()

    def replace_gradient(self, *, by_zeros: bool) -> None:
        """Takes the gradients on their way out of sight, as ``zero_grad`` has to: their buffers are not touched."""
        with self._lock, guards.untouched():
            for slot in self._pending.values():
                if slot.parameter.grad is not None:
                    slot.parameter.grad = torch.zeros_like(slot.parameter) if by_zeros else None

    def _touched(self, parameter: Tensor) -> None:
        with self._lock:
            slot = self._pending.get(id(parameter))
            if slot is None:
                return  # another thread was here first
            self._reducer.wait([slot])
            self._apply([one for one in self._pending.values() if self._reducer.is_averaged(one)])

    def _gradient_touched(self, parameter: Tensor) -> Callable[[Tensor], None]:
        return lambda _gradient: self._touched(parameter)

    def _apply(self, slots: list[Slot]) -> None:
        groups: dict[int, list[Tensor]] = {}
        kept: list[tuple[Slot, Tensor | None]] = []
        for slot in slots:
            parameter = slot.parameter
            del self._pending[id(parameter)]
            guards.release(parameter)
            used = self._reducer.settle(slot)
            if parameter.grad is not slot.view:
                kept.append((slot, parameter.grad))  # zeroed or replaced since step()
            parameter.grad = slot.view if used else None
            groups.setdefault(self._group_of[id(parameter)], []).append(parameter)
        self._update([{**self._groups[index], "params": parameters} for index, parameters in sorted(groups.items())])
        for slot, gradient in kept:
            slot.parameter.grad = gradient


def reason_against(optimizer: torch.optim.Optimizer, separable: bool | None) -> str | None:  # noqa: FBT001
    """Why this optimizer's updates cannot be done parameter by parameter; None if they can.

    ``separable``: what its user says of it; None: what is known, by torch's own classes or an attribute ``separable``.
    """
    kind = type(optimizer)
    if separable is None:
        known = kind.__name__ in SEPARABLE.get(kind.__module__.rpartition(".")[0], ())
        separable = known or bool(getattr(optimizer, "separable", False))
    if not separable:
        return (
            f"{kind.__name__} is not known to update each parameter by its own gradient alone; if it does, say "
            "separable=True"
        )
    for group in optimizer.param_groups:
        for one in group["params"]:
            if not guards.can_guard(one):
                return f"a parameter of class {type(one).__name__} has its own __torch_function__"
    return None


def _copy(value: Any) -> Any:  # noqa: ANN401
    return value.clone() if isinstance(value, Tensor) else value
