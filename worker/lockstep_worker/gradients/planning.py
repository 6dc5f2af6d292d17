"""``Planner``: which plan a step has, the same on every rank: first none is measured, then some are tried, one is kept.

What changes the plan is agreed at the beginning of a step, which all ranks pass: by gathers where parameters changed,
where times were measured and where trials are over; and by an element of the step's own averaged pieces, which every
rank reads alike, where a rank has found that its steps are no longer what they were.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

import lockstep
from lockstep_worker.gradients import guards
from lockstep_worker.gradients.buffers import size_of
from lockstep_worker.gradients.drift import Drift
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.exchange import LONGEST_POLL
from lockstep_worker.gradients.named import describe
from lockstep_worker.gradients.pieces import Size
from lockstep_worker.gradients.plan import FUSED_CREDIT, LEAST_PIECE_BYTES, Plan, compare, first_plan
from lockstep_worker.gradients.recorded import document_of, record_of
from lockstep_worker.gradients.timing import Stopwatch
from lockstep_worker.gradients.transport import Driven, Transport, transport_name
from lockstep_worker.gradients.trials import PAIRS, ROUNDS, Trials
from lockstep_worker.gradients.tuning import OTHERS_CPU, SECOND_PIECE, Costs, candidates

WARM_UP = 3
"""Steps with a plan that nothing was measured for. The first one does not count: it pays for memory and caches; the
others have pieces of two sizes, of which the link is fitted."""

MOST_MEASUREMENTS = 4
"""Warm-ups in which no first use is seen (an evaluation behind every step), until the order is made without."""


class Planner:
    """Of one rank. ``names`` and ``parameters`` are the reducer's own lists: they may grow.

    ``asked``: what is given by hand, ``None`` for what is to be tuned; compared between the ranks. ``recorded``: a
    plan that is used as it is, where rank 0 has it. ``piece_cpu``: seconds of the training's core that a piece has cost
    so far. ``slice_us``: of the exchange's thread, to be recorded.
    """

    def __init__(
        self,
        transport: Transport,
        names: Sequence[str],
        parameters: Sequence[Tensor],
        *,
        asked: dict[str, Any],
        recorded: Plan | None,
        watch: Stopwatch,
        piece_cpu: Callable[[], float],
        slice_us: Callable[[], float | None],
    ) -> None:
        self.plan: Plan | None = None
        self.renew = False
        """Whether some rank wants a new plan at the next beginning."""
        self.document: dict[str, Any] | None = None
        """What was chosen last, once it is."""
        self.drift = Drift()
        self.rounds = ROUNDS
        self.pairs = PAIRS
        self._transport = transport
        self._names = names
        self._parameters = parameters
        self._asked = asked
        self._recorded = recorded
        self._watch = watch
        self._piece_cpu = piece_cpu
        self._slice_us = slice_us
        self._told: list[bool] = []
        self._steps = 0
        self._agreements = 0
        self._measurements = 0
        self._trials: Trials | None = None
        self._drifted = False
        self._fixed = False
        """Whether the plan is the recorded one."""
        self._began: float | None = None

    # -- steps -------------------------------------------------------------------------------------------------------

    def begin(self) -> Plan:
        """The plan of the step that begins on all ranks."""
        if self._trials is not None and self._began is not None:
            self._trials.note(time.perf_counter() - self._began)
        if self.plan is None or self.renew or (self._steps >= WARM_UP and self.measuring):
            self.agree()
        elif self._drifted:
            self._measure_again()
        if self._trials is not None and self._trials.over:
            self._decide(self._trials)
        if self._trials is not None:
            self.plan = self._trials.next()
        elif self.measuring and self._steps == WARM_UP - 1 and self._asked["piece_bytes"] is None:
            assert self.plan is not None
            smaller = max(self.plan.piece_bytes // SECOND_PIECE, LEAST_PIECE_BYTES)
            self.plan = self._unmeasured(self.plan.number, self.plan.sequence, smaller)
        self._began = time.perf_counter()
        assert self.plan is not None
        return self.plan

    def end(self, *, exposed: float, busy: float, wanted: bool, drifted: bool) -> None:
        """The step is averaged: its wait for gradients and the link's busy time here, in seconds, and what all say."""
        self._steps += 1
        self.renew = wanted
        self._drifted = drifted
        if self._watches_drift and self._began is not None:
            self.drift.note(exposed, busy, time.perf_counter() - self._began)

    @property
    def measuring(self) -> bool:
        """Whether the plan is still to be made from what is measured in this step."""
        return self.plan is None or not self.plan.measured

    @property
    def keeps(self) -> bool:
        """Whether what is measured now is kept: a step's pieces, and, once it has ended, the next first uses."""
        return self.measuring and self._steps > 0

    @property
    def drifts(self) -> bool:
        """Whether this rank finds that its steps have changed."""
        return self._watches_drift and self.drift.wants

    @property
    def lacks(self) -> bool:
        """Whether this rank's parameters are not those that were agreed."""
        return self._requires() != self._told

    # -- plans -------------------------------------------------------------------------------------------------------

    def agree(self) -> Plan:
        """Tells all ranks what this one has; rank 0 makes the plans. Every rank calls it at the same point."""
        described = describe(self._names, self._parameters)
        self._told = self._requires()
        facts = self._transport.gather({"parameters": described, "requires": self._told, **self._asked})
        for rank, other in enumerate(facts):
            compare(facts[0], other, rank)
        wanted = [number for number in range(len(described)) if any(other["requires"][number] for other in facts)]
        if not wanted:
            raise GradientError("no parameter of the optimizer requires a gradient on any rank")
        found = self._from_first(lambda: self._make(wanted))
        self._agreements += 1
        self.renew = self._drifted = False
        plans = [Plan.from_json(one) for one in found["plans"]]
        if found["new"]:
            self._trials, self._fixed = None, found["fixed"]
            self.plan = plans[0]
            self._steps = 0 if self.measuring else self._steps
            if len(plans) > 1:
                self._trials = Trials.of_all(plans, self.rounds)
            elif plans[0].measured:
                self._settle(plans[0], found["why"])
        assert self.plan is not None
        return self.plan

    def _make(self, wanted: Sequence[int]) -> dict[str, Any]:
        """On rank 0. ``new`` is false where the plan that there is goes on."""
        sizes, now = self._sizes(), self._agreements
        limit, credit = self._asked["piece_bytes"], self._asked["credit"]
        same = self.plan is not None and set(wanted) == set(self.plan.sequence)
        why = ""
        if self._recorded is not None and not same:
            if set(self._recorded.sequence) == set(wanted):
                return {"plans": [self._recorded.as_json()], "new": True, "fixed": True, "why": "as recorded"}
            print(
                "lockstep: other parameters require gradients than when the tuning was recorded; it is measured anew",
                file=sys.stderr,
            )
        if not same:
            plans = [self._unmeasured(now, wanted, limit)]
        elif not self.measuring or self._steps < WARM_UP:
            return {"plans": [], "new": False}
        else:
            self._measurements += 1
            measured = self._watch.measured()
            if measured.used or self._measurements >= MOST_MEASUREMENTS:
                plans = candidates(now, sizes, wanted, limit, credit, measured=measured, costs=self._costs())
                why = "as given" if None not in (limit, credit) else "there is nothing to choose"
            else:
                plans = [self._unmeasured(now, wanted, limit)]
        return {"plans": [one.as_json() for one in plans], "new": True, "fixed": False, "why": why}

    def _unmeasured(self, number: int, wanted: Sequence[int], piece_bytes: int | None) -> Plan:
        return first_plan(
            number, self._sizes(), wanted, piece_bytes, self._asked["credit"], fuses=not self._transport.calls_back
        )

    def _decide(self, trials: Trials) -> None:
        """A stage is over: the plan that looks best has to be confirmed yet, or one is kept."""
        seconds = self._transport.gather(trials.seconds())
        found = self._from_first(lambda: vars(trials.choose(seconds)))
        plan = trials.plans[found["index"]]
        if found["doubtful"]:
            self._trials = Trials.in_pairs(trials.plans[0], plan, found["why"], self.pairs)
            return
        self._trials, self.plan = None, plan
        self._settle(plan, found["why"])

    def _measure_again(self) -> None:
        """The plan goes on until another one is measured."""
        assert self.plan is not None
        one_by_one = not self._transport.calls_back and self._asked["credit"] is None
        self.plan = replace(self.plan, measured=False, credit=FUSED_CREDIT if one_by_one else self.plan.credit)
        self._trials = None
        self._steps = self._measurements = 0
        self._watch.forget()
        self.drift.restart()
        self._drifted = False
        if self._transport.rank == 0:
            print("lockstep: steps are not what they were when the exchange was tuned; it is measured again",
                  file=sys.stderr)  # fmt: skip

    def _settle(self, plan: Plan, why: str) -> None:
        self.drift.restart()
        self.document = document_of(
            plan,
            describe(self._names, self._parameters),
            transport=transport_name(self._transport),
            ranks=self._transport.size,
            cycle_time_ms=_cycle_time_ms(self._transport),
            slice_us=self._slice_us(),
            why=why,
        )
        if self._transport.rank == 0 and "LOCKSTEP_RUN" in os.environ:
            values: dict[str, Any] = record_of(self.document)
            lockstep.report(kind="tuning", **values)

    def _from_first(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What rank 0 makes, told to all; its failure is raised on all."""
        told: dict[str, Any] = {}
        failed = None
        if self._transport.rank == 0:
            try:
                told = {"made": make()}
            except Exception as error:  # told to the others, which wait for it
                told, failed = {"error": repr(error)}, error
        found = self._transport.gather(told)[0]
        if "error" in found:
            raise GradientError(f"rank 0 has made no plan: {found['error']}") from failed
        made: dict[str, Any] = found["made"]
        return made

    @property
    def _watches_drift(self) -> bool:
        return not self._fixed and self._trials is None and not self.measuring

    def _costs(self) -> Costs:
        cycle = _cycle_time_ms(self._transport)
        driven = isinstance(self._transport, Driven)
        own = self._piece_cpu()
        return Costs(
            piece_cpu=own + (0.0 if driven else OTHERS_CPU) if own > 0 else 0.0,
            # A polled end is seen late by a quarter of the longest pause, and waits for half a cycle of Horovod's.
            turnaround=0.0 if self._transport.calls_back else LONGEST_POLL / 4 + (cycle or 0.0) / 2e3,
            fuses=not self._transport.calls_back,
            defer=self._asked["defer"],
            driven=driven,
        )

    def _sizes(self) -> list[Size]:
        return [size_of(one) for one in self._parameters]

    def _requires(self) -> list[bool]:
        with guards.untouched():
            return [one.requires_grad for one in self._parameters]


def _cycle_time_ms(transport: Transport) -> float | None:
    """Horovod's pause between two looks at what is to be sent, which it reads once, when it starts; else None."""
    return float(os.environ.get("HOROVOD_CYCLE_TIME", "1")) if transport_name(transport) == "horovod" else None
