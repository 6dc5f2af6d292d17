"""What is logged of something that fails again and again."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from lockstep_service.telemetry.trouble import AGAIN_SECONDS, Trouble, lasting

AWAY, BUSY = "Unable to contact slurm controller", "Socket timed out"


class TestTrouble:
    def test_is_said_at_once_and_then_every_ten_minutes_with_how_long_it_lasts(self) -> None:
        trouble = Trouble()
        said = {at: text for at in range(0, 1801, 5) if (text := trouble.failed(AWAY, at)) is not None}
        assert said == {
            0: AWAY,
            600: f"{AWAY} (it has failed for 10 min)",
            1200: f"{AWAY} (it has failed for 20 min)",
            1800: f"{AWAY} (it has failed for 30 min)",
        }

    def test_another_reason_is_said_at_once_and_two_that_take_turns_once_each(self) -> None:
        trouble = Trouble()
        said = [trouble.failed(AWAY if at % 10 == 0 else BUSY, at) for at in range(0, 300, 5)]
        assert [text for text in said if text is not None] == [AWAY, f"{BUSY} (it has failed for 5 s)"]

    def test_its_end_is_said_once_and_the_next_begins_anew(self) -> None:
        trouble = Trouble()
        assert trouble.went_well(0) is None
        trouble.failed(AWAY, 10)
        assert trouble.went_well(740) == "12 min"
        assert trouble.went_well(745) is None
        assert trouble.failed(AWAY, 750) == AWAY

    @given(
        failures=st.lists(st.tuples(st.floats(0.001, 100), st.sampled_from([AWAY, BUSY])), min_size=1),
        again=st.floats(1, 1000),
    )
    def test_a_failure_never_goes_unsaid_for_longer_than_that(
        self, failures: list[tuple[float, str]], again: float
    ) -> None:
        trouble, at, said_at = Trouble(again), 0.0, None
        for pause, why in failures:
            at += pause
            if trouble.failed(why, at) is not None:
                said_at = at
            assert said_at is not None
            assert at - said_at < again


def test_a_duration_has_one_unit() -> None:
    assert [lasting(seconds) for seconds in (0, 119, 120, AGAIN_SECONDS, 7199, 7200, 172_800)] == [
        "0 s", "119 s", "2 min", "10 min", "119 min", "2 h", "2 days",
    ]  # fmt: skip
