"""What is sent first: one total order of the pieces, by list scheduling on one link. Pure.

A piece can be sent from its release (its last gradient is there), is due at its deadline (its first use in the next
forward pass), and occupies the link for its duration; nothing preempts it. Whenever the link is free, the most urgent
of the released pieces is next: where durations are equal no order has a smaller maximum of lateness (Jackson's rule).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Of one piece, in seconds since the start of the backward pass."""

    release: float
    deadline: float
    duration: float


def schedule(timings: Sequence[Timing]) -> list[int]:
    """The numbers of the pieces in the order in which every rank issues them; ties by deadline, then by number."""
    arriving = sorted(range(len(timings)), key=lambda number: (timings[number].release, number))
    waiting: list[tuple[float, int]] = []
    order: list[int] = []
    now, arrived = 0.0, 0
    while len(order) < len(timings):
        if not waiting:
            now = max(now, timings[arriving[arrived]].release)
        while arrived < len(arriving) and timings[arriving[arrived]].release <= now:
            number = arriving[arrived]
            heapq.heappush(waiting, (timings[number].deadline, number))
            arrived += 1
        _, number = heapq.heappop(waiting)
        order.append(number)
        now += timings[number].duration
    return order


def arrivals(
    timings: Sequence[Timing], order: Sequence[int], *, credit: int, turnaround: float, fuses: bool
) -> list[float]:
    """When each piece arrives, by its number, if they are issued strictly in this order, ``credit`` at most under way.

    A place is free ``turnaround`` seconds after a piece has arrived. The link carries one after another; one that
    ``fuses`` takes at once whatever waits for it, and all of that arrives together.
    """
    issued: list[float] = []
    arrived = [0.0] * len(timings)
    free, place = 0.0, 0

    def issue(position: int) -> float:
        before = issued[-1] if issued else 0.0
        room = arrived[order[position - credit]] + turnaround if position >= credit else 0.0
        return max(timings[order[position]].release, before, room)

    while place < len(order):
        issued.append(issue(place))
        start = max(free, issued[-1])
        free = start + timings[order[place]].duration
        first, place = place, place + 1
        while fuses and place < min(len(order), first + credit) and issue(place) <= start:
            issued.append(issue(place))
            free += timings[order[place]].duration
            place += 1
        for position in range(first, place):
            arrived[order[position]] = free
    return arrived
