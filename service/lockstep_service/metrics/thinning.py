"""Fewer points for a chart, with every peak still there. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


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
    each = 3 if gaps else 2
    pieces = (points - 2) // each
    if pieces == 0:
        # No room for both peaks of even one piece.
        kept = {0, count - 1}
        if points > 2:
            highs = _all(high, float("-inf"))
            kept.add(highs.index(max(highs[1:-1]), 1))
        return sorted(kept)
    kept = {0, count - 1}
    inner = count - 2
    lows, highs = _all(low, float("inf")), _all(high, float("-inf"))
    for piece in range(pieces):
        start, end = 1 + inner * piece // pieces, 1 + inner * (piece + 1) // pieces
        kept.add(lows.index(min(lows[start:end]), start))
        kept.add(highs.index(max(highs[start:end]), start))
        gap = bisect_left(gaps, start)
        kept.update(gaps[gap : gap + 1] if gap < len(gaps) and gaps[gap] < end else ())
    return sorted(kept)


def _all(found: Sequence[float | None], otherwise: float) -> list[float]:
    return [otherwise if one is None else one for one in found]
