"""``Link``: what a piece takes on the link, as a latency and seconds per byte, fitted to measured pieces. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

LATENCY = 1e-3
"""Seconds a piece takes however small it is, where it was not measured: about one cycle of Horovod's."""
APART = 1.5
"""Two sizes tell latency and bytes apart if one is so many times the other."""
MOST_SAMPLES = 256
"""The latest count: every pair of them is compared."""


@dataclass(frozen=True)
class Link:
    """``latency``: seconds of a piece without bytes; ``per_byte``: seconds that each byte adds."""

    latency: float
    per_byte: float

    def seconds(self, size: float) -> float:
        """What a piece of ``size`` bytes takes."""
        return self.latency + size * self.per_byte

    def carries(self, seconds: float) -> float:
        """Bytes that a piece of so many seconds has; infinite where bytes take no time."""
        return max(0.0, seconds - self.latency) / self.per_byte if self.per_byte > 0 else float("inf")


def fit(samples: Iterable[tuple[int, float]]) -> Link:
    """The link that has carried these pieces (bytes, seconds); from wherever they were measured.

    The slope is the median of all pairs' of clearly different sizes (Theil and Sen), so that a piece that was held up
    bends nothing. Where all are about as large, or larger ones were not slower, the latency is not known from them.
    """
    found = sorted(list(samples)[-MOST_SAMPLES:])
    slopes = [
        (seconds - other_seconds) / (size - other)
        for place, (size, seconds) in enumerate(found)
        for other, other_seconds in found[:place]
        if size >= APART * max(other, 1)
    ]
    per_byte = statistics.median(slopes) if slopes else 0.0
    if per_byte > 0:
        return Link(max(0.0, statistics.median(seconds - size * per_byte for size, seconds in found)), per_byte)
    # The large pieces alone: the others say more of a collective's own time than of the link.
    rates = [seconds / size for size, seconds in found if APART * size >= found[-1][0] > 0]
    return Link(LATENCY, statistics.median(rates) if rates else 0.0)
