"""The means that a chart's strong line is drawn from: over all steps, however few points there are of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from lockstep_service.metrics.curve import Curve
from lockstep_service.metrics.figures import ROOM, Figures
from lockstep_service.metrics.record import Record
from lockstep_service.metrics.schemas import Series


def told(values: Sequence[Any], *, name: str = "samples_per_s", rank: int = 0) -> list[Record]:
    """A value a step, as one rank tells them."""
    return [Record(1, rank, step, 1e9 + step, "step", step, {name: value}) for step, value in enumerate(values, 1)]


def taken(*ranks: list[Record], cut: int = 700) -> Figures:
    """Records of several ranks that go on side by side."""
    found = Figures()
    for start in range(0, len(ranks[0]), cut):
        for records in ranks:
            found.take(records[start : start + cut])
    return found


def drawn(figures: Figures, points: int = 600) -> Series:
    (found,) = figures.series(points)
    return found


def known(found: Series) -> list[tuple[float, float]]:
    """The means that there are, and their weights."""
    assert found.mean is not None
    assert found.weight is not None
    assert len(found.mean) == len(found.weight) == len(found.step)
    return [(mean, weight) for mean, weight in zip(found.mean, found.weight, strict=True) if mean is not None]


def over_all(found: Series) -> float:
    """The mean over all steps, as the means of the points tell it."""
    pairs = known(found)
    return sum(mean * weight for mean, weight in pairs) / sum(weight for _, weight in pairs)


@pytest.mark.parametrize("count", [3600, 40_000])
def test_a_dip_at_every_twelfth_step_does_not_pull_the_mean_down_to_it(count: int) -> None:
    values = [20.0 if step % 12 == 5 else 100.0 for step in range(count)]
    figures = taken(told(values))
    assert len(figures.curves[0]) <= ROOM
    for points in (600, 10_000) if count > ROOM else (600,):
        found = drawn(figures, points)
        drawn_values = fmean(value for value in found.value if value is not None)
        assert drawn_values < 0.9 * fmean(values), "or the points are no extremes, and this test says nothing"
        assert fmean(mean for mean, _ in known(found)) == pytest.approx(fmean(values), rel=0.01)
        assert over_all(found) == pytest.approx(fmean(values), rel=1e-9)
        assert sum(weight for _, weight in known(found)) == pytest.approx(count)


def test_a_restart_in_between_changes_no_mean() -> None:
    records = told([20.0 if step % 12 == 5 else 100.0 for step in range(20_000)])
    whole, begun = taken(records), taken(records[:9100])
    body, curves = begun.stored()
    again = Figures.of(begun.revision, body, [curves[number] for number in sorted(curves)])
    for start in range(9100, len(records), 700):
        again.take(records[start : start + 700])
    assert drawn(again) == drawn(whole)


def test_where_each_point_is_a_step_nothing_is_added_to_the_answer() -> None:
    found = drawn(taken(told([1.0] * 600)))
    assert (found.mean, found.weight) == (None, None)


def test_a_means_place_is_where_its_steps_are() -> None:
    found = drawn(taken(told([float(step) for step in range(30_000)], name="loss")))
    assert found.mean is not None
    for step, mean in zip(found.step, found.mean, strict=True):
        assert mean == pytest.approx(step, abs=300)


def test_the_ranks_rates_are_added_and_their_losses_averaged() -> None:
    rates = [[20.0 if step % 12 == 5 else 100.0 for step in range(9000)], [50.0] * 9000]
    both = sum(fmean(rate) for rate in rates)
    for name, mean in (("samples_per_s", both), ("loss", both / 2)):
        found = drawn(taken(*(told(rate, name=name, rank=rank) for rank, rate in enumerate(rates)), cut=200))
        assert over_all(found) == pytest.approx(mean)
        assert sum(weight for _, weight in known(found)) == pytest.approx(9000)


def test_what_a_rank_tells_late_of_steps_that_are_gone_counts() -> None:
    figures = taken(told([0.5] * 20_000, name="loss"))
    figures.take(told([1.5] * 20_000, name="loss", rank=1))
    assert over_all(drawn(figures)) == pytest.approx(1.0)


def test_what_is_no_number_is_in_no_mean() -> None:
    values: list[Any] = [1.0] * 9000
    values[3000:3600] = ["NaN"] * 600
    found = drawn(taken(told(values, name="loss")))
    assert over_all(found) == 1.0
    assert sum(weight for _, weight in known(found)) == pytest.approx(8400)
    assert None in (found.mean or ())


def test_of_a_curve_that_was_stored_without_them_nothing_is_made_up() -> None:
    records = told([20.0 if step % 12 == 5 else 100.0 for step in range(20_000)])
    body, curves = taken(records[:10_000]).stored()
    older = [zlib.compress(msgpack.encode(msgpack.decode(zlib.decompress(curve))[:13])) for curve in curves.values()]
    figures = Figures.of(1, body, older)
    settled = figures.curves[0].settled
    assert settled is not None
    for start in range(10_000, len(records), 700):
        figures.take(records[start : start + 700])
    found = drawn(figures)
    assert found.mean is not None
    assert all(mean is None for step, mean in zip(found.step, found.mean, strict=True) if step < settled - 300)
    assert fmean(mean for mean, _ in known(found)) == pytest.approx(93.3, rel=0.03)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90), st.integers(-9, 9)), max_size=150),
    st.lists(st.integers(1, 149), max_size=6),
)
def test_whenever_a_curve_is_narrowed_no_value_is_lost_and_none_counts_twice(
    found: list[tuple[int, int, int]], narrowed: list[int]
) -> None:
    curve = Curve(1, "step", "loss")
    for number, (rank, step, value) in enumerate(found):
        if number in narrowed:
            curve.narrow(16)
        curve.put(step, rank, float(value), 1e9 + number, late=False)
    sums, numbers = curve.means()
    assert sum(sums) == pytest.approx(sum(value for _, _, value in found), abs=1e-6)
    assert sum(numbers) == pytest.approx(len(found))
