"""Piece size and credit by measuring: which plans are worth a try. Pure.

A model of the link and of the step says which plans could be good; it does not know what a piece costs a core that
computes as well, nor what the network does with two at once. So the best few are tried in real steps (``trials``).
"""

from __future__ import annotations

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
    driven: bool = False
    """Whether the exchange's thread carries the pieces itself."""


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
        return measured_plan(number, sizes, wanted, piece, places, measured=measured, fuses=costs.fuses,
                             driven=costs.driven)  # fmt: skip

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
