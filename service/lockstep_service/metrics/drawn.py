"""From curves to the series that a chart draws: of one attempt, or joined over all of them as one line. Pure.

A training that goes on from a checkpoint does the steps behind it again. Of a joined line these count as they were done
last: an attempt's points end where a later attempt began.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lockstep_service.metrics.curve import Curve
from lockstep_service.metrics.rank import Attempt
from lockstep_service.metrics.record import number
from lockstep_service.metrics.schemas import AttemptBegun, Series, SeriesPart
from lockstep_service.metrics.thinning import cut, means, thin

Kind = Literal["step", "evaluation", "usage"]
# An evaluation's values that share a name with a step's are told apart by this.
_ALSO_OF_A_STEP = frozenset({"loss", "samples", "seconds", "samples_per_s", "exposed_s", "epoch"})
_SUMMED = frozenset({"samples_per_s"})


class _Piece(NamedTuple):
    """Some points of a curve, by index."""

    curve: Curve
    shown: Sequence[int]


def apart(curves: Iterable[Curve], points: int, over: frozenset[int]) -> list[Series]:
    """A series for each curve, of at most ``points``; ``over``: the attempts to which nothing will be added.

    A step counts once all ranks that report this figure have reported it; at the end of an attempt the means also
    count steps that only some ranks got to, while a sum over some of the ranks would be a different figure.
    """
    return [_series([_Piece(curve, _shown(curve, over))], points) for curve in sorted(curves, key=_order)]


def joined(curves: Iterable[Curve], points: int, over: frozenset[int], begun: Sequence[AttemptBegun]) -> list[Series]:
    """A series for each figure over the attempts in ``begun``; of what has no step, each attempt's own."""
    ends = _ends(begun)
    lines: dict[tuple[str, str], list[_Piece]] = {}
    found = []
    for curve in sorted((one for one in curves if one.attempt in ends), key=_order):
        shown = _shown(curve, over)
        if curve.kind == "usage" or not curve.by_step:
            found.append(_series([_Piece(curve, shown)], points))
            continue
        end = ends[curve.attempt]
        if end is not None:
            shown = shown[: bisect_left(shown, bisect_left(curve.steps, end))]
        lines.setdefault((curve.kind, series_name(curve)), []).append(_Piece(curve, shown))
    return [_series(pieces, points) for pieces in lines.values()] + found


def begun(curves: Iterable[Curve], attempts: Mapping[int, Attempt], wanted: Iterable[int]) -> list[AttemptBegun]:
    """Where each of the attempts ``wanted`` that trained at all began, the oldest first."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    evaluated: dict[int, int] = {}
    for curve in curves:
        if not len(curve) or not curve.by_step:
            continue
        if curve.kind == "step":
            first[curve.attempt] = min(curve.steps[0], first.get(curve.attempt, curve.steps[0]))
            last[curve.attempt] = max(curve.steps[-1], last.get(curve.attempt, curve.steps[-1]))
        elif curve.kind == "evaluation":
            evaluated[curve.attempt] = min(curve.steps[0], evaluated.get(curve.attempt, curve.steps[0]))
    found: list[AttemptBegun] = []
    reached: int | None = None
    for attempt in sorted(wanted):
        resumed = attempts[attempt].resumed if attempt in attempts else None
        # A script that counts its steps from 1 in each attempt is taken by its own numbers.
        step = first.get(attempt, evaluated.get(attempt))
        if resumed is not None and (step is None or step > resumed.step):
            step = resumed.step + 1
        if step is None:
            continue
        again = 0 if reached is None else max(0, reached - step + 1)
        found.append(AttemptBegun(attempt=attempt, step=step, resumed_from=resumed and resumed.step, done_again=again))
        reached = max(step - 1, last.get(attempt, step - 1))
    return found


def _ends(begun: Sequence[AttemptBegun]) -> dict[int, int | None]:
    """By attempt the step where its part of the line has ended; None: it goes on to the attempt's own end."""
    ends: dict[int, int | None] = {}
    end: int | None = None
    for one in reversed(begun):
        ends[one.attempt] = end
        end = one.step if end is None else min(end, one.step)
    return ends


def _shown(curve: Curve, over: frozenset[int]) -> Sequence[int]:
    return curve.shown(whole=not (curve.attempt in over and _aggregate(curve) == "mean"))


def _series(pieces: Sequence[_Piece], points: int) -> Series:
    """One series of the points of ``pieces``, which are of one figure and follow each other."""
    total = _known(_all(pieces, "totals"))
    low, high = _known(_all(pieces, "lows")), _known(_all(pieces, "highs"))
    kept = thin(total, low, high, points)
    newest = pieces[-1].curve
    aggregate = _aggregate(newest)
    whole = len(kept) == len(total)
    bounds = range(len(total) + 1) if whole else cut(len(total), points, gaps=None in total)
    mean, weight = (None, None) if whole and _every_step(pieces) else _means(pieces, aggregate, kept, bounds)
    steps, times, counts, told = (_all(pieces, name) for name in ("steps", "times", "counts", "told"))
    return Series(
        name=series_name(newest),
        attempt=newest.attempt,
        aggregate=aggregate,
        kind=kind_of(newest),
        step=[steps[i] for i in kept],
        time=[times[i] for i in kept],
        value=[_value(total[i], counts[i], told[i], aggregate) for i in kept],
        min=[low[i] for i in kept],
        max=[high[i] for i in kept],
        mean=mean,
        weight=weight,
        ranks=len(newest.ranks),
        parts=_parts(pieces, kept),
    )


def _every_step(pieces: Sequence[_Piece]) -> bool:
    """Whether each point stands for itself alone."""
    return all(curve.settled is None for curve, _ in pieces)


def _means(
    pieces: Sequence[_Piece], aggregate: Literal["mean", "sum"], kept: Sequence[int], bounds: Sequence[int]
) -> tuple[list[float | None], list[float]]:
    """Of each point that was ``kept`` the mean over all steps that it stands for, and of how many steps."""
    sums: list[float] = []
    steps: list[float] = []
    for curve, shown in pieces:
        found, counts = (_at(column, shown) for column in curve.means())
        ranks = len(curve.ranks)
        # A step's value is the sum over its ranks, or their mean.
        sums += found if ranks == 1 or aggregate == "sum" else [value / ranks for value in found]
        steps += counts if ranks == 1 else [count / ranks for count in counts]
    if math.isnan(sum(sums)):
        steps = [0 if math.isnan(value) else count for value, count in zip(sums, steps, strict=True)]
        sums = [0.0 if math.isnan(value) else value for value in sums]
    found_means, weights = means(sums, steps, kept, bounds)
    return [number(mean) for mean in found_means], weights


def _all(pieces: Sequence[_Piece], name: str) -> Sequence[Any]:
    """This column of all points, one piece after another."""
    if len(pieces) == 1:
        return _at(getattr(pieces[0].curve, name), pieces[0].shown)
    return [value for curve, shown in pieces for value in _at(getattr(curve, name), shown)]


def _at(column: Sequence[float], shown: Sequence[int]) -> Sequence[float]:
    return column[shown.start : shown.stop] if isinstance(shown, range) else [column[i] for i in shown]


def _parts(pieces: Sequence[_Piece], kept: Sequence[int]) -> list[SeriesPart]:
    """Which of the points that are ``kept`` are whose."""
    found = []
    end = 0
    for curve, shown in pieces:
        begin, end = end, end + len(shown)
        first = bisect_left(kept, begin)
        if bisect_left(kept, end) > first:
            found.append(SeriesPart(attempt=curve.attempt, first=first, ranks=len(curve.ranks)))
    return found


def _order(curve: Curve) -> tuple[int, str, str]:
    return curve.attempt, curve.kind, series_name(curve)


def kind_of(curve: Curve) -> Kind:
    """What its records are."""
    return "evaluation" if curve.kind == "evaluation" else "usage" if curve.kind == "usage" else "step"


def series_name(curve: Curve) -> str:
    """The name that is its own among all kinds."""
    also = curve.kind == "evaluation" and curve.name in _ALSO_OF_A_STEP
    return f"evaluation_{curve.name}" if also else curve.name


def _aggregate(curve: Curve) -> Literal["mean", "sum"]:
    return "sum" if series_name(curve) in _SUMMED else "mean"


def _known(values: Sequence[float]) -> list[float | None]:
    return [value if value == value else None for value in values]  # noqa: PLR0124 - not NaN


def _value(total: float | None, count: int, told: int, aggregate: Literal["mean", "sum"]) -> float | None:
    if total is None:
        return None
    mean = total / count
    return number(mean * told if aggregate == "sum" else mean)
