"""Throughput over the newest steps: all samples by all seconds, so that one short step is no figure."""

from __future__ import annotations

import pytest

from lockstep_service.metrics.pace import Pace, exposed_share, throughput


def test_a_short_step_among_long_ones_counts_by_its_time() -> None:
    steps = [Pace(1.0, 10.0, 0.5), Pace(0.01, 1000.0, 0.0)]
    assert throughput(steps) == pytest.approx(20 / 1.01)
    assert exposed_share(steps) == pytest.approx(0.5 / 1.01)


def test_a_record_of_ten_steps_counts_by_the_time_of_all_and_not_by_the_samples_of_one() -> None:
    ten = Pace.of({"samples": 32, "seconds": 10.0, "samples_per_s": 32.0})
    assert throughput([ten]) == 32.0
    assert throughput([ten, Pace.of({"samples": 32, "seconds": 40.0, "samples_per_s": 8.0})]) == pytest.approx(12.8)


def test_what_a_script_tells_alone_is_averaged() -> None:
    assert throughput([Pace(None, 10.0, None), Pace(None, 30.0, None)]) == 20.0
    assert throughput([Pace(1.0, None, None)]) is None
    assert exposed_share([Pace(1.0, 8.0, None)]) is None


def test_a_first_step_that_nobody_timed_is_left_out() -> None:
    assert throughput([Pace(None, None, None), Pace(2.0, 16.0, None)]) == 16.0


def test_what_would_be_infinite_or_backwards_is_no_figure() -> None:
    assert throughput([Pace(10.0, 1e308, 1e308)]) is None
    assert exposed_share([Pace(1e-300, 1.0, 1e308)]) is None
    assert throughput([Pace(-2.0, None, None)]) is None
    assert exposed_share([Pace(-2.0, None, 1.0)]) is None
    assert throughput([Pace(None, 1e308, None)] * 2) is None


def test_infinite_or_missing_values_are_no_figures() -> None:
    assert Pace.of({"samples": "NaN", "seconds": 0, "samples_per_s": "Infinity"}) == Pace(0.0, None, None)
    assert throughput([Pace(0.0, None, None)]) is None
