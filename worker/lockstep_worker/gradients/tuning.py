"""Piece size and credit by measuring: which plans are worth a try, and which of those tried is kept. Pure.

A model of the link and of the step says which plans could be good; it does not know what a piece costs a core that
computes as well, nor what the network does with two at once. So the best few are tried in real steps, in turn, and
their measured time decides. Where the difference is not larger than its own uncertainty, the default stays.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lockstep_worker.gradients.order import arrivals
from lockstep_worker.gradients.pieces import Size, lay_out
from lockstep_worker.gradients.plan import Measured, Plan, measured_plan, timings_of

PIECE_SIZES = tuple((256 << 10) << power for power in range(7))
"""Bytes: 256 KiB to 16 MiB."""
CREDITS = (1, 2, 3, 4)
OTHERS_CPU = 1e-3
"""Seconds that a piece costs the core beside the exchange thread's own: Horovod's and Gloo's threads have their turns
(49 pieces of 1 MiB in place of 7 of 8 took a step on one core from 180 to 250 ms on the loopback)."""
SECOND_PIECE = 4
"""By which the pieces of the last measured step are smaller: two sizes tell latency from what the bytes take."""
NEAR = 1.25
"""A piece size so near to the default's is not another one."""
TRIED = 3
"""Plans that are tried beside the default."""
ROUNDS = 4
"""Steps of each, beside a first one that is not counted: Horovod agrees on new pieces in it."""
LEAST_GAIN = 0.005
"""Of a step; what gains less is not worth another plan."""
ERRORS = 2.0
"""Standard errors of the median that a gain has to be larger than."""


@dataclass(frozen=True)
class Costs:
    """What a simulation of the exchange has to know beside the link and the times of the step."""

    piece_cpu: float
    """Seconds that each piece takes from the core that trains; 0.0 where the exchange has one of its own."""
    turnaround: float
    """Seconds from a piece's arrival to the next one being issued in its place."""
    fuses: bool
    """Whether what waits is carried together, as Horovod does it."""
    defer: bool
    """Whether a gradient is due at its parameter's next use; else all are due at the end of the backward pass."""


def exposed(plan: Plan, sizes: Sequence[Size], measured: Measured, costs: Costs) -> float:
    """Seconds of a step that this plan is expected to cost: the latest piece's lateness, and the core's work on all."""
    layout = lay_out(sizes, plan.sequence, plan.piece_bytes)
    timings = timings_of(layout, sizes, measured)
    arrived = arrivals(timings, plan.order, credit=plan.credit, turnaround=costs.turnaround, fuses=costs.fuses)
    ends = max([*measured.released.values(), 0.0])
    due = [timing.deadline if costs.defer else ends for timing in timings]
    late = max(at - deadline for at, deadline in zip(arrived, due))  # noqa: B905 - Python 3.9
    return max(0.0, late) + costs.piece_cpu * len(timings)


def candidates(
    number: int,
    sizes: Sequence[Size],
    wanted: Sequence[int],
    piece_bytes: int | None,
    credit: int | None,
    *,
    measured: Measured,
    costs: Costs,
) -> list[Plan]:
    """The plans to try, the default first; what is given (``piece_bytes``, ``credit``) is so in all of them.

    Beside the default the best of each other piece size, and its own size with another credit, as the model ranks them.
    One plan alone where nothing is left to choose: a model of one piece has no order and needs no credit.
    """

    def plan(piece: int | None, places: int | None) -> Plan:
        return measured_plan(number, sizes, wanted, piece, places, measured=measured, fuses=costs.fuses)

    default = plan(piece_bytes, credit)
    own = default.piece_bytes
    others = [size for size in PIECE_SIZES if max(size, own) > NEAR * min(size, own)] if piece_bytes is None else []
    best: list[tuple[float, Plan]] = []
    cuts = {lay_out(sizes, default.sequence, own).pieces}
    for size in (own, *others):
        pieces = lay_out(sizes, default.sequence, size).pieces
        if size != own and pieces in cuts:
            continue  # the same pieces: nothing is large enough to be cut otherwise
        cuts.add(pieces)
        # As many pieces as there are can be under way at most.
        places = [credit] if credit is not None else [one for one in CREDITS if one <= len(pieces)] or [CREDITS[0]]
        tries = [plan(size, one) for one in places]
        tries = [one for one in tries if size != own or _credit(one) != _credit(default)]
        ranked = sorted((exposed(one, sizes, measured, costs), one.credit, one) for one in tries)
        best.extend((cost, one) for cost, _, one in ranked[:1])
    best.sort(key=lambda one: (one[0], one[1].piece_bytes, one[1].credit))
    return [default, *(one for _, one in best[:TRIED])]


def _credit(plan: Plan) -> int:
    """What it comes to with so few pieces."""
    return min(plan.credit, len(plan.order))


@dataclass(frozen=True)
class Choice:
    """The plan that is kept, by its place among those tried, and why."""

    index: int
    why: str


class Trials:
    """Real steps with each of these plans in turn, there and back, so that a slow change of the machine hits all."""

    def __init__(self, plans: Sequence[Plan], rounds: int = ROUNDS) -> None:
        there = list(range(len(plans)))
        self._turns = [place for turn in range(rounds + 1) for place in (there if turn % 2 else reversed(there))]
        self._plans = plans
        self._next = 0
        self._seconds: list[list[float]] = [[] for _ in plans]

    @property
    def over(self) -> bool:
        """Whether every step is done."""
        return self._next == len(self._turns)

    @property
    def plans(self) -> Sequence[Plan]:
        """What is tried, the default first."""
        return self._plans

    def next(self) -> Plan:
        """The next step's plan."""
        self._next += 1
        return self._plans[self._turns[self._next - 1]]

    def note(self, seconds: float) -> None:
        """What the step took on this rank, from one backward pass to the next one."""
        if self._next:
            self._seconds[self._turns[self._next - 1]].append(seconds)

    def seconds(self) -> list[list[float]]:
        """By plan and round, without the first round."""
        return [one[1:] for one in self._seconds]


def choose(plans: Sequence[Plan], seconds: Sequence[Sequence[Sequence[float]]]) -> Choice:
    """From the seconds by rank, plan and round. A step is as long as it is on its slowest rank.

    Compared are the steps of one round, and the median of the differences counts. The default stays unless another one
    gains more than ``LEAST_GAIN`` of a step, and either more than ``ERRORS`` standard errors of that median, or so
    much that its slowest step was faster than the default's fastest (of four and four steps by chance once in 70).
    """
    rounds = [
        [max(one) for one in zip(*(rank[place] for rank in seconds))]  # noqa: B905 - Python 3.9
        for place in range(len(plans))
    ]
    step = statistics.median(rounds[0])
    best, gained, error = 0, 0.0, 0.0
    for place in range(1, len(plans)):
        gains = [mine - other for mine, other in zip(rounds[0], rounds[place])]  # noqa: B905
        gain, uncertain = statistics.median(gains), _error_of_median(gains)
        certain = gain > ERRORS * uncertain or max(rounds[place]) < min(rounds[0])
        if certain and gain > max(LEAST_GAIN * step, gained):
            best, gained, error = place, gain, uncertain
    tried = f"of {len(plans)} plans tried in {len(rounds[0])} steps each"
    if best == 0:
        return Choice(0, f"{_said(plans[0])}: {tried} none was better by more than its uncertainty")
    return Choice(
        best,
        f"{_said(plans[best])}: {tried} better than {_said(plans[0])} by {gained * 1e3:.1f} ms "
        f"(+- {error * 1e3:.1f}) of a step of {step * 1e3:.1f} ms",
    )


def _error_of_median(values: Sequence[float]) -> float:
    """Its standard error, from the median deviation (1.4826 of it is a normal distribution's standard deviation)."""
    middle = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(one - middle) for one in values)
    return 1.2533 * deviation / math.sqrt(len(values))


def _said(plan: Plan) -> str:
    unit, size = ("MiB", 1 << 20) if plan.piece_bytes >= 1 << 20 else ("KiB", 1 << 10)
    return f"{plan.piece_bytes / size:.3g} {unit} x {plan.credit}"
