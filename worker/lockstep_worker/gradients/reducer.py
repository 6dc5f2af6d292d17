"""``Reducer``: from the gradients of one rank to the averages over all, one step at a time.

A step begins with its first gradient, or without any at ``flush``. Whatever this rank has, it contributes every piece:
zeros and a cleared flag where there is no gradient. That a parameter has begun or ceased to require a gradient is told
to all ranks with the step's own pieces, and leads to a new plan at a point that all ranks pass.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lockstep_worker.gradients import guards
from lockstep_worker.gradients.buffers import Buffers, size_of
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.exchange import Exchange
from lockstep_worker.gradients.pieces import lay_out
from lockstep_worker.gradients.plan import Plan, first_plan
from lockstep_worker.gradients.planning import Planner
from lockstep_worker.gradients.timing import Stopwatch, link_seconds
from lockstep_worker.gradients.transport import Transport

_owners: dict[int, weakref.ref[Reducer]] = {}
"""By the parameter's id."""


class Slot:
    """One parameter in the plan, and how far it is in this step."""

    def __init__(self, number: int, parameter: Tensor, view: Tensor, parts: tuple[int, ...], passes: int) -> None:
        self.number = number
        self.parameter = parameter
        self.view = view
        self.parts = parts
        self.passes = passes
        """Backward passes that are still to come in this step."""
        self.ready = False
        self.absent = False


class Reducer:
    """The exchange of these parameters. ``before_backward`` is called when a gradient comes while a step is sealed."""

    def __init__(
        self,
        named: Sequence[tuple[str, Tensor]],
        transport: Transport,
        *,
        name: str,
        piece_bytes: int | None,
        credit: int | None,
        recorded: Plan | None = None,
        passes: int,
        defer: bool,
        before_backward: Callable[[], None],
    ) -> None:
        self.transport = transport
        self.accumulating = False
        self.begun = False
        self.sealed = False
        """Whether the step waits for its update: everything is flushed, ``end`` is still to come."""
        self.slots: list[Slot] = []
        self.plan: Plan | None = None
        self.passes = passes
        self._name = name
        self._names = [one for one, _ in named]
        self._parameters = [one for _, one in named]
        self._before_backward = before_backward
        self._by_number: dict[int, Slot] = {}
        self._buffers: Buffers | None = None
        self._handles: dict[int, tuple[Any, Any]] = {}
        self._wanted_by = 0.0
        self._packings = 0
        self._waited_before = 0.0
        """Seconds that the training had waited when this step began."""
        self._watch = Stopwatch()
        for one in self._parameters:
            self._claim(one)
        self._exchange = Exchange(transport)
        self.counters = self._exchange.counters
        self.planner = Planner(
            transport,
            self._names,
            self._parameters,
            asked={"piece_bytes": piece_bytes, "credit": credit, "defer": defer},
            recorded=recorded,
            watch=self._watch,
            piece_cpu=self._exchange.cpu_seconds_per_piece,
            slice_us=self._exchange.slice_us,
        )
        self._hook()

    # -- a step, in the order of its calls ---------------------------------------------------------------------------

    def begin(self) -> None:
        """All ranks begin a step: the one point where plans change."""
        self._watch.unwatch()
        plan = self.planner.begin()
        if plan is not self.plan:
            self._adopt(plan)
        self._open()

    def _open(self) -> None:
        assert self._buffers is not None
        self._hook()
        self._buffers.mark_used()
        self._buffers.say(wants=self.wants_new_plan, drifts=self.planner.drifts)
        self.counters.begin(self._buffers, self.transport.rank, self.transport.size)
        self._waited_before = self.counters.waited
        for slot in self.slots:
            slot.ready, slot.absent, slot.passes = False, False, self.passes
        self._exchange.begin()
        self._watch.begin()
        self.begun = True

    def flush(self) -> None:
        """What has no gradient by now gets none in this step: every piece can be sent."""
        if not self.begun:
            self.begin()
        assert self._buffers is not None
        with guards.untouched():
            for slot in self.slots:
                if slot.ready:
                    self._check_kept(slot)
                elif slot.parameter.grad is None:
                    slot.absent = True
                    self._buffers.mark_absent(slot.number)
                    slot.parameter.grad = slot.view
                    self._send(slot)
                else:
                    self._take(slot)

    def expect(self, passes: int) -> None:
        """So many backward passes come before a gradient is sent: of what is not sent yet, and in later steps."""
        self.passes = passes
        for slot in self.slots:
            if not slot.ready:
                slot.passes = passes

    def has(self, parameter: Tensor) -> bool:
        """Whether it is one of its parameters."""
        return any(one is parameter for one in self._parameters)

    def wait(self, slots: Sequence[Slot] | None = None, seconds: float | None = None) -> None:
        """Sleeps until these (None: all) are averaged, ``seconds`` at most (``TimeoutError``)."""
        pieces = None if slots is None else [piece for slot in slots for piece in slot.parts]
        self._exchange.wait(pieces, seconds)

    def is_averaged(self, slot: Slot) -> bool:
        """Whether ``wait`` would not sleep."""
        return self._exchange.is_complete(slot.parts)

    def settle(self, slot: Slot) -> bool:
        """An averaged gradient is an ordinary one from now on; False if no rank had one."""
        assert self._buffers is not None
        guards.release(slot.view)
        return not slot.absent or self._buffers.was_used(slot.number)

    def synchronize(self) -> None:
        """Every gradient is averaged when it returns; of a parameter that no rank used there is none."""
        self.flush()
        self.wait()
        for slot in self.slots:
            slot.parameter.grad = slot.view if self.settle(slot) else None
        self.end()

    def end(self) -> None:
        """All is averaged and settled."""
        assert self._buffers is not None
        issued, completed = self._exchange.issued_at, self._exchange.completed_at
        if self.planner.keeps:
            self._watch.sent(self._buffers.pieces, issued, completed)
        self._wanted_by = self._buffers.share_that_wants()
        self.counters.end(self._buffers, self.transport.size)
        self.planner.end(
            exposed=self.counters.waited - self._waited_before,
            busy=sum(link_seconds(issued, completed)),
            wanted=self._wanted_by > 0,
            drifted=self._buffers.any_drifts(),
        )
        # Last: from now on a backward pass in another thread begins the next step.
        self.begun = self.sealed = False

    # -- plans -------------------------------------------------------------------------------------------------------

    @property
    def measuring(self) -> bool:
        """Whether the plan is still to be made from what is measured in this step."""
        return self.planner.measuring

    @property
    def wants_new_plan(self) -> bool:
        """Whether this rank's parameters are not those of the plan."""
        return self.planner.lacks

    def late(self) -> list[int]:
        """Parameters with a gradient, by number, that are not in the plan."""
        return [
            number for number, one in enumerate(self._parameters)
            if number not in self._by_number and one.requires_grad and one.grad is not None
        ]  # fmt: skip

    def watch_first_uses(self) -> None:
        """For the next plan."""
        if self.planner.keeps:
            self._watch.watch((slot.number, slot.parameter) for slot in self.slots)

    def catch_up(self, *, agreed: bool) -> None:
        """After a step in which some rank wanted a new plan: what was not in the old one is averaged now, if it can be.

        That takes all ranks to be here: they are if all asked (each waits for its own question), or if none defers
        (``agreed``). Else a gradient of what was not planned is dropped, on the ranks that have it.
        """
        if self._wanted_by <= 0:
            self._drop("joined the optimizer, or began to require gradients, within a step", "no rank waits for it yet")
        elif agreed or self._wanted_by > 1 - 0.5 / self.transport.size:  # all of them, up to rounding
            known = set(self._by_number)
            plan = self.planner.agree()
            late = [number for number in plan.sequence if number not in known]
            if late:
                sizes = [size_of(one) for one in self._parameters]
                self._adopt(first_plan(plan.number, sizes, late, plan.piece_bytes, plan.credit))
                self._open()
                self.flush()
                self.wait()
                for slot in self.slots:
                    if not self.settle(slot):
                        slot.parameter.grad = None
                self.begun = False
            self._adopt(plan)
        else:
            self._drop("began to require gradients on some ranks only", "the other ranks do not wait for it")

    def _drop(self, what: str, why: str) -> None:
        """Takes away this rank's own gradients of what is not planned: nobody averages them."""
        late = self.late()
        for number in late:
            self._parameters[number].grad = None
        if late:
            print(
                f"lockstep: {self._names[late[0]]}{f' and {len(late) - 1} more' if len(late) > 1 else ''} {what}; the "
                f"first gradient is dropped, since {why}", file=sys.stderr,
            )  # fmt: skip

    def add(self, named: Sequence[tuple[str, Tensor]]) -> None:
        """Further parameters, from the next step on; every rank has to add the same.

        Where one has not, all find out, since it is told as whatever a rank's plan lacks, with a step's own pieces.
        """
        for name, parameter in named:
            self._claim(parameter)
            self._names.append(name)
            self._parameters.append(parameter)
        self._hook()

    def close(self, seconds: float) -> bool:
        """Ends the thread and takes the hooks away; whether it ended in time.

        In the middle of a step that was not sealed there is nothing to wait for: this rank fails, and the others wait
        for pieces that it will not send.
        """
        seconds = min(seconds, 0.5) if self.begun else seconds
        for one in self._parameters:
            _owners.pop(id(one), None)
        self._watch.unwatch()
        for slot in self.slots:
            guards.release(slot.view)
        for pair in self._handles.values():
            for handle in pair:
                handle.remove()
        self._handles.clear()
        return self._exchange.close(seconds)

    def _claim(self, parameter: Tensor) -> None:
        """Raises ``GradientError`` if it cannot be exchanged, or is by another optimizer."""
        self.transport.check(parameter.dtype)
        known = _owners.get(id(parameter))
        other = None if known is None else known()
        if other is not None and other is not self and other.has(parameter):
            raise GradientError(
                f"a parameter of shape {tuple(parameter.shape)} is in another DistributedOptimizer already; close() "
                "that one first"
            )
        _owners[id(parameter)] = weakref.ref(self)

    def _adopt(self, plan: Plan) -> None:
        """Other pieces or another order; the same memory and gradients where the packing is as it was."""
        layout = lay_out([size_of(one) for one in self._parameters], plan.sequence, plan.piece_bytes)
        if self._buffers is not None and self.plan is not None and self.plan.sequence == plan.sequence:
            self._buffers.cut(layout)
            for slot in self.slots:
                slot.parts = layout.parts[slot.number]
        else:
            self._buffers = Buffers(self._parameters, layout)
            self.slots = [
                Slot(number, self._parameters[number], self._buffers.views[number], layout.parts[number], self.passes)
                for number in sorted(plan.sequence)
            ]
            self._by_number = {slot.number: slot for slot in self.slots}
            self._packings += 1
            self._exchange.forget()
        # The same names whenever the same pieces come again: Horovod knows them then.
        names = [f"{self._name}.{self._packings}.{plan.piece_bytes}.{piece}" for piece in range(len(layout.pieces))]
        self._exchange.adopt(
            self._buffers.pieces, names, plan.order, [len(piece.tensors) for piece in layout.pieces], plan.credit
        )
        self.plan = plan

    # -- hooks -------------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        for number, one in enumerate(self._parameters):
            if number not in self._handles and one.requires_grad:
                self._handles[number] = (
                    one.register_hook(self._arriving(number)),  # type: ignore[no-untyped-call]
                    one.register_post_accumulate_grad_hook(self._accumulated(number)),  # type: ignore[no-untyped-call]
                )

    def _arriving(self, number: int) -> Callable[[Tensor], None]:
        """Before a gradient is added to ``.grad``."""

        def arriving(_gradient: Tensor) -> None:
            if self.sealed:
                self._before_backward()
            slot = self._by_number.get(number)
            if self.begun and slot is not None and slot.ready:
                raise GradientError(
                    f"a second gradient of {self._names[number]} before step() or synchronize(); to add up several "
                    "backward passes, make all but the last within `with optimizer.accumulate():`"
                )

        return arriving

    def _accumulated(self, number: int) -> Callable[[Tensor], None]:
        """After a gradient was added to ``.grad``."""

        def accumulated(parameter: Tensor) -> None:
            if self.accumulating or parameter.grad is None:  # frozen behind its forward pass: torch added nothing
                return
            if not self.begun:
                self.begin()
            slot = self._by_number.get(number)
            if slot is None:
                return
            slot.passes -= 1
            if slot.passes == 0:
                self._take(slot)
                if self.measuring:
                    self._watch.released(number)

        return accumulated

    def _take(self, slot: Slot) -> None:
        gradient = slot.parameter.grad
        assert gradient is not None
        if gradient is not slot.view:
            if gradient.is_sparse:
                raise GradientError(
                    f"the gradient of {self._names[slot.number]} is sparse; use Embedding(..., sparse=False)"
                )
            if gradient.requires_grad:
                raise GradientError("backward(create_graph=True) makes gradients that cannot be averaged in place")
            slot.view.copy_(gradient)
            slot.parameter.grad = slot.view
        self._send(slot)

    def _send(self, slot: Slot) -> None:
        slot.ready = True
        guards.guard(slot.view, self._too_early)
        self._exchange.ready(slot.parts)

    def _check_kept(self, slot: Slot) -> None:
        if slot.parameter.grad is not slot.view:
            raise GradientError(
                f"the gradient of {self._names[slot.number]} was replaced between backward() and step(), while it is "
                "exchanged; call optimizer.synchronize() first, and step() within `with optimizer.skip_synchronize():`"
            )

    def _too_early(self, _gradient: Tensor) -> None:
        raise GradientError(
            "a gradient was used while it is exchanged; call optimizer.synchronize() first, and step() within "
            "`with optimizer.skip_synchronize():`"
        )
