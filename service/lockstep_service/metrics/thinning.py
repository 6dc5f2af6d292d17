"""Fewer points for a chart, with every peak still there. Pure."""

from __future__ import annotations

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
    each = 3 if any(found is None for found in value) else 2
    pieces = (points - 2) // each
    if pieces == 0:
        # No room for both peaks of even one piece.
        middle = range(1, count - 1)
        kept = {0, count - 1}
        if points > 2:
            kept.add(max(middle, key=lambda i: _or(high[i], float("-inf"))))
        return sorted(kept)
    kept = {0, count - 1}
    inner = count - 2
    for piece in range(pieces):
        members = range(1 + inner * piece // pieces, 1 + inner * (piece + 1) // pieces)
        kept.add(min(members, key=lambda i: _or(low[i], float("inf"))))
        kept.add(max(members, key=lambda i: _or(high[i], float("-inf"))))
        kept.update([i for i in members if value[i] is None][:1])
    return sorted(kept)


def _or(found: float | None, otherwise: float) -> float:
    return otherwise if found is None else found
