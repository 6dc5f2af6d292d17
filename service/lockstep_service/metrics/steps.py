"""``Steps``: one figure over the steps of one attempt, each step aggregated once. Values in, values out."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Point:
    """One step, over the ranks that reported it; None where a rank's value is not finite, or none's is."""

    total: float | None
    low: float | None
    high: float | None
    ranks: int


@dataclass
class Steps:
    """Takes each rank's values in any order; a look aggregates only the steps that changed since the one before."""

    ranks: set[int] = field(default_factory=set)
    _by_rank: dict[int, dict[int, float | None]] = field(default_factory=dict)
    _points: dict[int, Point] = field(default_factory=dict)
    _order: list[int] = field(default_factory=list)
    _changed: set[int] = field(default_factory=set)

    def put(self, step: int, rank: int, value: float | None) -> None:
        """Takes a value; of two for one step, the one that comes later stays."""
        known = self._by_rank.get(step)
        if known is None:
            known = self._by_rank[step] = {}
            insort(self._order, step)
        known[rank] = value
        self.ranks.add(rank)
        self._changed.add(step)

    def points(self, *, whole: bool) -> tuple[Sequence[int], Sequence[Point]]:
        """The steps, in order, and their points; ``whole``: only those that all ranks reported."""
        for step in self._changed:
            self._points[step] = _aggregated(self._by_rank[step])
        self._changed.clear()
        found, count = self._points, len(self.ranks)
        steps = [step for step in self._order if found[step].ranks == count] if whole else list(self._order)
        return steps, [found[step] for step in steps]


def _aggregated(by_rank: dict[int, float | None]) -> Point:
    known = [value for value in by_rank.values() if value is not None]
    return Point(
        total=sum(known) if len(known) == len(by_rank) else None,
        low=min(known) if known else None,
        high=max(known) if known else None,
        ranks=len(by_rank),
    )
