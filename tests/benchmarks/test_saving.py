"""What ``benchmarks.saving`` makes of turns with a save and without."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.saving import notes, row

STEPS, WARM, PAIRS = 8, 1, 4


def launch(*, cost: float = 0.4, seconds: float = 1.5, foreign: float = 0.01, is_whole: bool = True) -> dict[str, Any]:
    """One start whose steps take 1 s each, and whose saves take ``cost`` more and ``seconds`` to be on the disk."""
    turns, saves = [], []
    for number in range(WARM + PAIRS):
        for is_saving in (True, False) if number % 2 else (False, True):
            turn = {"counts": number >= WARM, "saves": is_saving, "seconds": STEPS + cost * is_saving, "cpu": 7.0,
                    "foreign": foreign}  # fmt: skip
            turns.append(turn)
        if number:
            saves.append({"step": STEPS * number, "bytes": 205e6, "seconds": seconds, "held_s": 0.1})
    return {"turns": turns, "saves": saves, "is_whole": is_whole, "steps": STEPS}


def test_a_save_costs_what_the_steps_behind_it_take_longer_and_comes_once_in_50() -> None:
    found = row([launch(), launch()], 64)
    assert found.ours == pytest.approx(50.4)
    assert found.peer == pytest.approx(50)
    assert found.ratio == pytest.approx(50 / 50.4)
    assert found.valid
    assert (
        "A step takes 1.00 s. A save of 205 MB holds it up for 100 ms, is on the disk 1.50 s later"
        in (notes([launch()])[0])
    )


def test_a_save_that_is_late_torn_or_missing_and_a_busy_machine_make_it_void() -> None:
    lost = launch()
    del lost["saves"][1]
    failed = launch()
    failed["saves"][1] = {"step": 2 * STEPS, "error": "No space left on device"}
    for bad in (launch(seconds=9), launch(is_whole=False), launch(foreign=0.2), lost, failed):
        assert not row([launch(foreign=bad["turns"][0]["foreign"]), bad], 64).valid
