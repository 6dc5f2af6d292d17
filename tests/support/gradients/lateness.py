"""How late an order is: what ``schedule`` is judged by."""

from __future__ import annotations

from collections.abc import Sequence

from lockstep_worker.gradients.order import Timing


def lateness(timings: Sequence[Timing], order: Sequence[int]) -> float:
    """How long after its deadline the latest piece arrives, in seconds, when sent strictly in this order."""
    now, worst = 0.0, float("-inf")
    for number in order:
        timing = timings[number]
        now = max(now, timing.release) + timing.duration
        worst = max(worst, now - timing.deadline)
    return worst
