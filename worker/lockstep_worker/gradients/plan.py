"""``Plan``: what all ranks agree on before they exchange: the pieces, their order, and how many at once.

Rank 0 makes it and every rank takes it from there as JSON, so that no two ranks can differ by a rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.link import Link
from lockstep_worker.gradients.order import Timing, schedule
from lockstep_worker.gradients.pieces import Layout, Size, lay_out

FIRST_PIECE_BYTES = 4 << 20
"""Before anything is measured."""
LEAST_PIECE_BYTES, MOST_PIECE_BYTES = 512 << 10, 8 << 20
PIECE_SECONDS = 0.008
"""How long a piece is to take: longer, and what is urgent waits behind it; shorter, and every piece's own cost counts
(about 1 ms of CPU on one core that computes as well: 49 pieces of 1 MiB in place of 7 of 8 took a step from 180 to 250
ms on the loopback)."""
CREDIT = 2
"""Pieces that may be under way at once, before anything is tried: one on the link, and one behind it."""
DRIVEN_SECONDS = 0.016
"""The same over connections that the exchange's thread drives: a step took 0.95 and 0.93 of what it takes with half of
it, and 0.91 and 0.96 of what it takes with twice as much (GoogLeNet, ResNet-50; one core a rank)."""
FUSED_SECONDS, FUSED_CREDIT = 0.032, 1
"""The same over Horovod: its ranks agree on a piece before they send it, some 3 ms on one core that computes as well,
and two that wait are copied into one buffer, which is on the link for as long as both."""


@dataclass(frozen=True)
class Plan:
    """One agreed plan. ``sequence``: the parameters by number, as packed; ``order``: the pieces by number, as sent."""

    number: int
    sequence: tuple[int, ...]
    piece_bytes: int
    credit: int
    order: tuple[int, ...]
    measured: bool
    """Whether the order comes from measured times."""

    def as_json(self) -> dict[str, Any]:
        """Itself in plain values."""
        return {**asdict(self), "sequence": list(self.sequence), "order": list(self.order)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Plan:
        """The plan that ``as_json`` told."""
        return cls(**{**found, "sequence": tuple(found["sequence"]), "order": tuple(found["order"])})


@dataclass(frozen=True)
class Measured:
    """What rank 0 saw, by the parameters' numbers, in seconds.

    ``released``: since the backward pass began. ``used``: first use since the forward pass began. ``link``: what pieces
    took on it while it was busy.
    """

    released: Mapping[int, float]
    used: Mapping[int, float]
    link: Link


def first_plan(
    number: int,
    sizes: Sequence[Size],
    wanted: Sequence[int],
    piece_bytes: int | None,
    credit: int | None,
    *,
    fuses: bool = False,
) -> Plan:
    """A plan before anything is known: packed as the parameters are listed, sent in reverse, as backward goes.

    Over a transport that ``fuses`` one piece at a time: two that are carried together arrive together, and neither
    tells what it would have taken alone.
    """
    piece_bytes = FIRST_PIECE_BYTES if piece_bytes is None else piece_bytes
    credit = (FUSED_CREDIT if fuses else CREDIT) if credit is None else credit
    layout = lay_out(sizes, wanted, piece_bytes)
    return Plan(number, tuple(wanted), piece_bytes, credit, tuple(reversed(range(len(layout.pieces)))), measured=False)


def measured_plan(
    number: int,
    sizes: Sequence[Size],
    wanted: Sequence[int],
    piece_bytes: int | None,
    credit: int | None,
    *,
    measured: Measured,
    fuses: bool = False,
    driven: bool = False,
) -> Plan:
    """A plan from times: packed by first use, sent by release and deadline. What was never seen comes last.

    Without ``piece_bytes`` a piece is what the link carries in ``PIECE_SECONDS``, within bounds; without ``credit`` it
    is ``CREDIT``. Over a transport that ``fuses`` it is ``FUSED_SECONDS`` and ``FUSED_CREDIT``, over one that is
    ``driven`` ``DRIVEN_SECONDS``.
    """
    seconds, places = (DRIVEN_SECONDS if driven else PIECE_SECONDS, CREDIT)
    if fuses:
        seconds, places = FUSED_SECONDS, FUSED_CREDIT
    if piece_bytes is None:
        piece_bytes = int(min(max(measured.link.carries(seconds), LEAST_PIECE_BYTES), MOST_PIECE_BYTES))
    credit = places if credit is None else credit
    never = max([*measured.used.values(), 0.0]) + 1.0
    sequence = sorted(wanted, key=lambda one: measured.used.get(one, never))
    layout = lay_out(sizes, sequence, piece_bytes)
    timings = timings_of(layout, sizes, measured)
    return Plan(number, tuple(sequence), piece_bytes, credit, tuple(schedule(timings)), measured=True)


def timings_of(layout: Layout, sizes: Sequence[Size], measured: Measured) -> list[Timing]:
    """Release, deadline and duration of each piece; the forward pass begins where the last gradient is there."""
    ends = max([*measured.released.values(), 0.0])
    never = max([*measured.used.values(), 0.0]) + 1.0
    items = {size.dtype: size.item for size in sizes}
    return [
        Timing(
            # Without a gradient in the measured steps it is only known to be missing at the end.
            release=max(measured.released.get(one, ends) for one in piece.tensors),
            deadline=ends + min(measured.used.get(one, never) for one in piece.tensors),
            duration=measured.link.seconds((piece.stop - piece.start) * items[piece.dtype]),
        )
        for piece in layout.pieces
    ]


def compare(first: dict[str, Any], other: dict[str, Any], rank: int) -> None:
    """Raises ``GradientError``, on all ranks alike, where the ranks cannot exchange."""
    for name in ("piece_bytes", "credit", "defer"):
        if first[name] != other[name]:
            raise GradientError(f"{name} is {first[name]} on rank 0 and {other[name]} on rank {rank}; it has to be one")
    ours, theirs = first["parameters"], other["parameters"]
    for one, another in zip(ours, theirs):  # noqa: B905 - Python 3.9
        if one != another:
            raise GradientError(
                f"the ranks' parameters differ (name, shape, strides, dtype): {one} on rank 0, {another} on rank {rank}"
            )
    if len(ours) != len(theirs):
        raise GradientError(f"rank 0 has {len(ours)} parameters and rank {rank} {len(theirs)}")
