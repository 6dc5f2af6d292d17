"""``Deferral``: an update that is sealed by ``step()`` and done parameter by parameter, when each is used again.

Sealed are the hyper-parameters of that moment and the gradients that are on their way. A parameter waits, guarded, for
its own gradient; whoever touches it first does its update, together with all others whose gradients are there by then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lockstep_worker.gradients import guards
from lockstep_worker.gradients.entry import Entry
from lockstep_worker.gradients.errors import GradientError
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
        self._zeros: dict[int, Tensor] = {}
        """By the parameter's id: what ``replace_gradient`` has put in the gradient's place."""
        self._entry = Entry(self.complete, self._all_touched)
        self._lock = threading.RLock()
        self._applying = False
        self._error: BaseException | None = None

    @property
    def pending(self) -> bool:
        """Whether a step is sealed and not ended: its update may be done already, parameter by parameter."""
        return self._reducer.sealed

    def seal(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Seals the update of what the reducer has flushed, with these groups' hyper-parameters as they are now."""
        groups = list(groups)
        # Another thread that uses a parameter waits until all are guarded: else it would complete and release what is
        # pending, and whatever is guarded behind its back would stay so, with nothing to wait for.
        with self._lock:
            self._groups = [{name: _copy(value) for name, value in one.items() if name != "params"} for one in groups]
            self._group_of = {id(one): index for index, group in enumerate(groups) for one in group["params"]}
            self._pending = {id(slot.parameter): slot for slot in self._reducer.slots}
            self._zeros.clear()
            self._reducer.sealed = True
            for slot in self._reducer.slots:
                guards.guard(slot.parameter, self._touched, self._lock)
                guards.guard(slot.view, self._gradient_touched(slot.parameter))
            self._entry.watch(slot.parameter for slot in self._reducer.slots)

    def complete(self, seconds: float | None = None) -> None:
        """Does all of the update that is not done; sleeps until its gradients are there (``TimeoutError``).

        Raises ``GradientError`` from what went wrong in an update before: it can be neither repeated nor left out.
        """
        with self._held(seconds) as left:
            self._raise()
            if self._reducer.sealed:
                if self._pending:
                    self._reducer.wait(list(self._pending.values()), left)
                    self._apply(list(self._pending.values()))
                self._entry.leave()
                self._reducer.end()

    @contextmanager
    def _held(self, seconds: float | None) -> Iterator[float | None]:
        """The lock, and how many of the seconds are left: another thread may have it while it waits for a gradient."""
        began = time.monotonic()
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            raise TimeoutError("another thread waits for a gradient, and has waited too long")
        try:
            yield None if seconds is None else max(0.0, seconds - (time.monotonic() - began))
        finally:
            self._lock.release()

    def alone(self) -> AbstractContextManager[Any]:
        """Within it no other thread computes an update, which reads the gradients that are to be changed."""
        return self._lock

    def abandon(self) -> None:
        """Ordinary parameters again, whatever was not done: nothing can be any more."""
        self._entry.leave()
        for slot in list(self._pending.values()):  # without the lock: another thread may wait with it for ever
            guards.release(slot.parameter)
        self._pending.clear()

    def replace_gradient(self, *, by_zeros: bool) -> None:
        """Takes the gradients on their way out of sight, as ``zero_grad`` has to: their buffers are not touched.

        Called within ``alone()``.
        """
        with guards.untouched():
            for slot in self._pending.values():
                if slot.parameter.grad is not None:
                    zeros = torch.zeros_like(slot.parameter) if by_zeros else None
                    slot.parameter.grad = zeros
                    if zeros is not None:
                        self._zeros[id(slot.parameter)] = zeros

    def _touched(self, parameter: Tensor) -> None:
        self._all_touched([parameter])

    def _all_touched(self, parameters: Sequence[Tensor]) -> None:
        with self._lock:
            self._raise()
            slots = [self._pending[id(one)] for one in parameters if id(one) in self._pending]
            if not slots:
                return  # another thread was here first
            self._reducer.wait(slots)
            self._apply([one for one in self._pending.values() if self._reducer.is_averaged(one)])
            if not self._pending:
                self._entry.leave()

    def _gradient_touched(self, parameter: Tensor) -> Callable[[Tensor], None]:
        return lambda _gradient: self._touched(parameter)

    def _apply(self, slots: list[Slot]) -> None:
        """The update of these. Other threads that touch one of them wait until it is done: they stay guarded."""
        self._applying = True
        began = time.perf_counter()
        try:
            with guards.untouched(), _outside_of_transforms():
                self._compute(slots)
            for slot in slots:
                del self._pending[id(slot.parameter)]
                guards.release(slot.parameter)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._applying = False
            self._reducer.counters.updating += time.perf_counter() - began

    def _compute(self, slots: list[Slot]) -> None:
        members: dict[int, list[Tensor]] = {}
        kept: list[tuple[Slot, Tensor | None]] = []
        for slot in slots:
            parameter = slot.parameter
            used = self._reducer.settle(slot)
            gradient = parameter.grad
            if gradient is not slot.view:  # zeroed or replaced since step()
                zeroed = gradient is not None and gradient is self._zeros.get(id(parameter))
                kept.append((slot, None if zeroed and not used else gradient))
            parameter.grad = slot.view if used else None
            members.setdefault(self._group_of[id(parameter)], []).append(parameter)
        groups = {index: {**self._groups[index], "params": parameters} for index, parameters in sorted(members.items())}
        self._update(list(groups.values()))
        for index, group in groups.items():
            _check_unchanged(self._groups[index], group)
        for slot, gradient in kept:
            slot.parameter.grad = gradient

    def _raise(self) -> None:
        if self._applying:
            raise GradientError("an update is being computed, in this very thread: it cannot be used from within")
        if self._error is not None:
            raise GradientError(
                f"an update failed before ({self._error!r}): the parameters are those of no step; close() the "
                "optimizer, and begin from a checkpoint"
            ) from self._error


@contextmanager
def _outside_of_transforms() -> Iterator[None]:
    """An update that is done within ``torch.func.grad`` is not a part of what is differentiated.

    Nor is one within ``torch.jit.trace`` a part of what is recorded, and done again by whoever runs the trace.
    """
    tracing = torch._C._get_tracing_state()  # noqa: SLF001 - no public way to pause it
    interpreted = torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 - no public way to ask
    if tracing is not None:
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined] # noqa: SLF001
    try:
        with _without_interpreters() if interpreted else nullcontext():
            yield
    finally:
        if tracing is not None:
            torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined] # noqa: SLF001


def _without_interpreters() -> AbstractContextManager[Any]:
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    return temporarily_clear_interpreter_stack()


def _check_unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raises ``GradientError`` where an update has written into its group: the next one would not find it there."""
    for name, value in after.items():
        if name == "params":
            continue
        old = before.get(name)
        same = value is old or (
            torch.equal(value, old)
            if isinstance(value, Tensor) and isinstance(old, Tensor)
            else name in before and bool(value == old)
        )
        if not same:
            raise GradientError(
                f"the optimizer's step() changes {name!r} of its parameter groups (from {old!r} to {value!r}), which "
                "is lost where parameters are updated one by one: say defer=False in place of separable=True"
            )


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
