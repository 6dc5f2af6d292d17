"""``lockstep show``: where a step's time goes, a line per part."""

from __future__ import annotations

from typing import Any

from lockstep_slurm.cli.step_time import lines

Json = dict[str, Any]


def spent(**more: Any) -> Json:
    parts = [("forward", 0.025), ("transfer", 0.05), ("waiting", 0.0), ("other", 0.025)]
    middle = {"rank": 2, "seconds": 0.1, "parts": [{"name": name, "seconds": seconds} for name, seconds in parts]}
    return {"median": middle, "told": 4, "sentence": None, "untold": None, "exchange": None} | more


def test_each_part_has_its_time_its_share_and_its_bar() -> None:
    assert list(lines(spent())) == [
        "a step takes 100 ms (rank 2, the median of 4):",
        "  forward                    25 ms  25.0%  " + "█" * 10,
        "  exposed: transfer          50 ms  50.0%  " + "█" * 20,
        "  exposed: slower rank        0 ms   0.0%",
        "  other                      25 ms  25.0%  " + "█" * 10,
    ]


def test_what_is_said_of_all_ranks_comes_beneath_without_what_would_move_the_cursor() -> None:
    said = list(lines(spent(sentence="Rank 3 on n\x1b[2J is slowest.", untold="Not told: data.", told=1)))
    assert said[0] == "a step takes 100 ms (rank 2):"
    assert said[-2:] == ["Rank 3 on n[2J is slowest.", "Not told: data."]


def test_parts_that_are_longer_than_their_step_stay_in_their_room() -> None:
    middle = {
        "rank": 0,
        "seconds": 0.1,
        "parts": [{"name": "exposed", "seconds": 0.3}, {"name": "untold", "seconds": 0.0}],
    }
    drawn = list(lines(spent(median=middle)))
    assert drawn[1].count("█") == 40
    assert "100.0%" in drawn[1]
