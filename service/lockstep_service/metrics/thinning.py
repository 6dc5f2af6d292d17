"""Fewer points for a chart, with every peak still there, and the means of what is left out. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise


def thin(
    value: Sequence[float | None], low: Sequence[float | None], high: Sequence[float | None], points: int
) -> list[int]:
    """Which points to keep, as indices in order: at most ``points`` (>= 2) of them.

    The first and the last stay. What is between is cut into equal pieces, and of each the point with the lowest
    ``low`` and the one with the highest ``high`` stay, and a point without a value where there is one: a NaN is the
    last thing that may vanish from a chart.
    """
    count = len(value)
    if count <= points:
        return list(range(count))
    gaps = [i for i, found in enumerate(value) if found is None]
    bounds = cut(count, points, gaps=bool(gaps))
    if len(bounds) == 2:
        # No room for both peaks of even one piece.
        kept = {0, count - 1}
        if points > 2:
            highs = _all(high, float("-inf"))
            kept.add(highs.index(max(highs[1:-1]), 1))
        return sorted(kept)
    kept = {0, count - 1}
    lows, highs = _all(low, float("inf")), _all(high, float("-inf"))
    for start, end in pairwise(bounds[1:-1]):
        kept.add(lows.index(min(lows[start:end]), start))
        kept.add(highs.index(max(highs[start:end]), start))
        gap = bisect_left(gaps, start)
        kept.update(gaps[gap : gap + 1] if gap < len(gaps) and gaps[gap] < end else ())
    return sorted(kept)


def cut(count: int, points: int, *, gaps: bool) -> list[int]:
    """Where the pieces of ``thin`` begin, and the end: the first and the last point are one each by themselves.

    One piece for all where there is no room for both peaks of even one. ``gaps``: whether some value is None.
    """
    pieces = (points - 2) // (3 if gaps else 2)
    if pieces == 0:
        return [0, count]
    inner = count - 2
    return [0, *(1 + inner * piece // pieces for piece in range(pieces + 1)), count]


def means(
    sums: Sequence[float], numbers: Sequence[float], kept: Sequence[int], bounds: Sequence[int]
) -> tuple[list[float | None], list[float]]:
    """For each point that was ``kept`` the mean over its piece, None where nothing is known, and its part of it.

    ``sums`` are over ``numbers`` of values, by point. All that are kept of a piece have the piece's mean, and equal
    parts of how many values it is over: so weighted, means over any pieces are means over all values of these.
    """
    found: list[float | None] = []
    weights: list[float] = []
    at = 0
    for start, end in pairwise(bounds):
        first = at
        while at < len(kept) and kept[at] < end:
            at += 1
        number = sum(numbers[start:end])
        found += [sum(sums[start:end]) / number if number else None] * (at - first)
        weights += [number / (at - first)] * (at - first)
    return found, weights


def _all(found: Sequence[float | None], otherwise: float) -> list[float]:
    return [otherwise if one is None else one for one in found]
