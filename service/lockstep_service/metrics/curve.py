"""``Curve``: one figure over the steps of one attempt, in room that does not grow with them. Values in, values out."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter

from msgspec import Struct, msgpack

NAN = float("nan")


class Kept(Struct, array_like=True, frozen=True):
    """A curve as it is stored; the columns are arrays of the machine's own numbers, of equal length."""

    attempt: int
    kind: str
    name: str
    ranks: dict[int, int]
    settled: int | None
    steps: bytes
    times: bytes
    totals: bytes
    counts: bytes
    told: bytes
    lows: bytes
    highs: bytes
    by_step: bool = True
    sums: bytes = b""
    numbers: bytes = b""


_COLUMNS = ("steps", "times", "totals", "counts", "told", "lows", "highs")
_OF_MEANS = ("sums", "numbers")


class Curve:
    """Takes each rank's values in any order.

    Each point is a step, over all values that were told of it. Of a long curve only some steps stay: those with the
    lowest and the highest values of their neighbourhood, each exact. What is told late of a step that did not stay
    widens the range (``low``, ``high``) of the one before it, so that no peak is ever lost.

    A mean over the lowest and the highest is no mean, so the points that stay also take over the values of those that
    do not: ``sums`` and ``numbers`` over all points are those of all that was ever told, but for steps with a NaN.
    """

    __slots__ = ("attempt", "by_step", "changed", "counts", "highs", "kind", "lows", "name", "numbers", "ranks",
                 "settled", "steps", "sums", "times", "told", "totals")  # fmt: skip

    def __init__(self, attempt: int, kind: str, name: str) -> None:
        self.attempt, self.kind, self.name = attempt, kind, name
        self.ranks: dict[int, int] = {}
        """By rank that tells this figure, its newest step."""
        self.settled: int | None = None
        """Up to this step (with it) not all steps are there any more."""
        self.changed = True
        """Since it was stored."""
        self.by_step = True
        """Whether every value came with a step: else some are placed by the number of their record."""
        self.steps = array("q")
        self.times = array("d")
        """Seconds since the epoch: when the last of the ranks told it."""
        self.totals = array("d")
        """Sums over the values; NaN where one of them is not finite."""
        self.counts = array("q")
        """How many values."""
        self.told = array("q")
        """How many ranks."""
        self.lows = array("d")
        self.highs = array("d")
        """NaN where no value is finite."""
        self.sums = array("d")
        """Over the finite values of all steps that a point stands for. Empty while every step is there."""
        self.numbers = array("d")
        """How many values these are: points that stand for the same steps share them in equal parts. Empty as well."""

    def __len__(self) -> int:
        return len(self.steps)

    def put(self, step: int, rank: int, value: float, time: float, *, late: bool) -> None:
        """Takes a value, which may be NaN. ``late``: the rank has told of something newer before, so of a new step.

        What a rank tells of one step several times is averaged.
        """
        self.changed = True
        newest = self.ranks.get(rank)
        again = newest is not None and step <= newest and not late
        if newest is None or step > newest:
            self.ranks[rank] = step
        steps = self.steps
        if not steps or step > steps[-1]:
            at = len(steps)
        else:
            at = bisect_left(steps, step)
            if steps[at] == step:
                self._merge(at, value, time, again=again)
                return
            if self.settled is not None and step <= self.settled:
                self._widen(max(at - 1, 0), value)
                self._add(max(at - 1, 0), value)
                return
        if self.settled is not None:
            finite = value == value  # noqa: PLR0124 - not NaN
            self.sums.insert(at, value if finite else 0.0)
            self.numbers.insert(at, 1.0 if finite else 0.0)
        if at == len(steps):
            steps.append(step)
            self.times.append(time)
            self.totals.append(value)
            self.counts.append(1)
            self.told.append(1)
            self.lows.append(value)
            self.highs.append(value)
        else:
            steps.insert(at, step)
            self.times.insert(at, time)
            self.totals.insert(at, value)
            self.counts.insert(at, 1)
            self.told.insert(at, 1)
            self.lows.insert(at, value)
            self.highs.insert(at, value)

    def extend(self, steps: Sequence[int], rank: int, values: Sequence[float], times: Sequence[float]) -> None:
        """``put`` of each of these; ``steps`` grow, the values are finite, and none is late."""
        newest = self.ranks.get(rank)
        if (self.steps and steps[0] <= self.steps[-1]) or (newest is not None and steps[0] <= newest):
            for step, value, time in zip(steps, values, times, strict=True):
                self.put(step, rank, value, time, late=False)
            return
        self.changed = True
        self.ranks[rank] = steps[-1]
        ones = array("q", [1]) * len(steps)
        heights = array("d", values)
        self.steps.extend(steps)
        self.times.extend(times)
        for column in (self.totals, self.lows, self.highs):
            column.extend(heights)
        self.counts.extend(ones)
        self.told.extend(ones)
        if self.settled is not None:
            self.sums.extend(heights)
            self.numbers.extend(array("d", ones))

    def _merge(self, at: int, value: float, time: float, *, again: bool) -> None:
        self.totals[at] += value
        self.counts[at] += 1
        if not again:
            self.told[at] += 1
        self.times[at] = max(self.times[at], time)
        self._widen(at, value)
        self._add(at, value)

    def _add(self, at: int, value: float) -> None:
        if self.settled is not None and value == value:  # noqa: PLR0124 - not NaN
            self.sums[at] += value
            self.numbers[at] += 1

    def _widen(self, at: int, value: float) -> None:
        if value != value:  # noqa: PLR0124 - NaN
            return
        low, high = self.lows[at], self.highs[at]
        if not low <= value:
            self.lows[at] = value
        if not high >= value:
            self.highs[at] = value

    def shown(self, *, whole: bool) -> Sequence[int]:
        """Which points there are, as indices; ``whole``: only those that all ranks told of."""
        everyone = len(self.ranks)
        if not whole or not self.steps or min(self.told) >= everyone:
            return range(len(self.steps))
        return [i for i, ranks in enumerate(self.told) if ranks >= everyone]

    def means(self) -> tuple[array[float], array[float] | array[int]]:
        """By point the sum over all values of the steps that it stands for, NaN where that is none, and how many."""
        return (self.totals, self.counts) if self.settled is None else (self.sums, self.numbers)

    def narrow(self, most: int) -> None:
        """Keeps at most ``most`` (>= 16) points: the newest eighth as it is, of the rest the peaks.

        The rest is cut into equal ranges of steps, so that however often this is done, old steps are as dense as new.
        The points that stay of a range take over its values in equal parts.
        """
        tail = most // 8
        head = len(self.steps) - tail
        pieces = (most - tail - 1) // 3
        if head <= 3 * pieces + 1:
            return
        if self.settled is None:
            self._begin_means()
        everyone = len(self.ranks)
        plain = self._is_plain(0, head, everyone)  # as most curves are, and then no piece has to be asked
        kept = [0]
        first, span = self.steps[0], self.steps[head - 1] - self.steps[0] + 1
        start = 1
        for piece in range(1, pieces + 1):
            end = bisect_left(self.steps, first + span * piece // pieces, start, head)
            if end - start <= 2:
                kept += range(start, end)
            else:
                peaks = self._peaks(start, end, everyone, plain=plain)
                self._share(start, end, peaks)
                kept += peaks
            start = end
        self.settled = self.steps[head - 1]
        kept += range(head, len(self.steps))
        pick = itemgetter(*kept)
        for name in (*_COLUMNS, *_OF_MEANS):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, pick(column)))

    def _is_plain(self, start: int, end: int, everyone: int) -> bool:
        """Whether none of these steps is NaN, and every rank told each."""
        total = sum(self.totals[start:end])
        return total == total and min(self.told[start:end]) >= everyone  # noqa: PLR0124 - not NaN

    def _begin_means(self, unknown: int = 0) -> None:
        """From here on not every step stays. Of the first ``unknown`` points nobody knows what they stand for."""
        finite = [total == total for total in self.totals]  # noqa: PLR0124 - not NaN
        finite[:unknown] = [False] * unknown
        self.sums = array("d", [total if known else 0.0 for total, known in zip(self.totals, finite, strict=True)])
        self.numbers = array("d", [count if known else 0 for count, known in zip(self.counts, finite, strict=True)])

    def _share(self, start: int, end: int, kept: Sequence[int]) -> None:
        total, number = sum(self.sums[start:end]) / len(kept), sum(self.numbers[start:end]) / len(kept)
        for at in kept:
            self.sums[at], self.numbers[at] = total, number

    def _peaks(self, start: int, end: int, everyone: int, *, plain: bool) -> list[int]:
        """Of the points from ``start`` up to ``end``, at most three that stay; their ranges take in the others'."""
        if plain or self._is_plain(start, end, everyone):
            lows, highs = self.lows[start:end], self.highs[start:end]
            return sorted({start + lows.index(min(lows)), start + highs.index(max(highs))})
        there = range(start, end)
        known = [i for i in there if self.lows[i] == self.lows[i]]
        candidates = [i for i in known if self.told[i] >= everyone] or known
        found = (
            {min(candidates, key=self.lows.__getitem__), max(candidates, key=self.highs.__getitem__)}
            if known
            else set()
        )
        gap = next((i for i in there if self.totals[i] != self.totals[i]), None)
        if gap is not None:
            found.add(gap)
        kept = sorted(found) or [start]
        if len(candidates) < len(known):
            for i in known:
                self._widen(kept[0], self.lows[i])
                self._widen(kept[0], self.highs[i])
        return kept

    def kept(self) -> bytes:
        """As it is to be stored."""
        return msgpack.encode(
            Kept(
                self.attempt, self.kind, self.name, self.ranks, self.settled, self.steps.tobytes(),
                self.times.tobytes(), self.totals.tobytes(), self.counts.tobytes(), self.told.tobytes(),
                self.lows.tobytes(), self.highs.tobytes(), self.by_step, self.sums.tobytes(), self.numbers.tobytes(),
            )
        )  # fmt: skip

    @classmethod
    def of(cls, stored: bytes) -> Curve:
        """From what ``kept`` gave."""
        found = msgpack.decode(stored, type=Kept)
        curve = cls(found.attempt, found.kind, found.name)
        curve.ranks, curve.settled, curve.changed = found.ranks, found.settled, False
        curve.by_step = found.by_step
        for name in (*_COLUMNS, *_OF_MEANS):
            getattr(curve, name).frombytes(getattr(found, name))
        if curve.settled is not None and not curve.sums:  # as it was stored before there were means
            curve._begin_means(bisect_right(curve.steps, curve.settled))
        return curve
