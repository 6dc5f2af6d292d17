"""Where a step's time goes: from step records to bars and sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.metrics import figures as figures_module
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.record import Record
from lockstep_service.metrics.schemas import StepBar, StepTime
from lockstep_service.metrics.step_time import MOST_BARS

from .conftest import HandMadeRun

Json = dict[str, Any]
STEP: Json = {"forward_s": 0.03, "backward_s": 0.06, "optimizer_s": 0.005, "data_s": 0.005}


def values(computing: float = 0.1, exposed: float = 0.04, waiting: float = 0.0, **more: Any) -> Json:
    """A step's values: ``computing`` seconds in all its four parts, 5 ms of other things."""
    parts = {name: part * computing / 0.1 for name, part in STEP.items()}
    told = parts | {"exposed_s": exposed, "waiting_s": waiting, "seconds": computing + exposed + 0.005}
    return told | more


def of(*ranks: Json | None, steps: int = 3, attempt: int = 1) -> StepTime | None:
    """Of an attempt in which each rank tells the same in each of its steps; None: it only starts."""
    figures = Figures()
    for rank, told in enumerate(ranks):
        figures.take([Record(attempt, rank, 1, 1.0, "start", None, {"node": f"n{rank // 2}"})])
        if told is not None:
            figures.take(
                [Record(attempt, rank, step + 1, 1.0 + step, "step", step, told) for step in range(1, steps + 1)]
            )
    return figures.step_time()


def told(*ranks: Json | None, **how: int) -> StepTime:
    found = of(*ranks, **how)
    assert found is not None
    return found


def parts(bar: StepBar) -> Json:
    return {part.name: pytest.approx(part.seconds, abs=1e-9) for part in bar.parts}


class TestParts:
    def test_add_up_to_the_step(self) -> None:
        bar = told(values(waiting=0.01)).median
        assert parts(bar) == {
            "forward": 0.03, "backward": 0.06, "optimizer": 0.005, "data": 0.005, "transfer": 0.03, "waiting": 0.01,
            "other": 0.005,
        }  # fmt: skip
        assert sum(part.seconds for part in bar.parts) == pytest.approx(bar.seconds)

    def test_of_a_script_that_tells_the_time_of_a_step_alone(self) -> None:
        found = told({"seconds": 0.2, "loss": 1.0}, {"seconds": 0.2})
        assert parts(found.median) == {"untold": 0.2}
        assert found.untold == "It is only told how long a step takes, and not what it is made of."
        assert (found.sentence, found.slowest) == (None, None)

    def test_of_a_script_that_also_tells_how_long_it_waited(self) -> None:
        found = told({"seconds": 0.2, "exposed_s": 0.05})
        assert parts(found.median) == {"exposed": 0.05, "untold": 0.15}
        assert found.untold is not None
        assert found.untold.startswith("Not told: forward pass, backward pass, optimizer, data, waiting for")

    def test_the_old_meaning_of_communication_s_is_not_shown_as_exposed(self) -> None:
        found = told({"seconds": 0.2, "communication_s": 0.05})
        assert parts(found.median) == {"untold": 0.2}
        assert found.exchange is None

    def test_of_no_times_there_is_nothing(self) -> None:
        assert of({"loss": 1.0}) is None
        assert of({"seconds": 0.0, "exposed_s": 1.0}) is None
        assert of({"seconds": "NaN"}) is None
        assert of({"seconds": 1e308, "forward_s": 1e308}) is None
        assert of(None) is None

    def test_a_part_longer_than_its_step_leaves_nothing_for_the_rest(self) -> None:
        bar = told({"seconds": 0.1, "exposed_s": 0.3, "waiting_s": 0.5, "forward_s": -1.0, "backward_s": 0.0}).median
        assert parts(bar) == {"forward": 0.0, "backward": 0.0, "transfer": 0.0, "waiting": 0.3, "other": 0.0}

    def test_a_record_that_stands_for_several_steps_is_divided(self) -> None:
        figures = Figures()
        figures.take([Record(1, 0, seq, 1.0, "step", 10 * seq, {"seconds": 2.0}) for seq in range(1, 4)])
        found = figures.step_time()
        assert found is not None
        assert found.median.seconds == pytest.approx(0.2)

    def test_a_first_step_without_all_its_parts_does_not_count(self) -> None:
        figures = Figures()
        figures.take([Record(1, 0, 1, 1.0, "step", 1, {"seconds": 9.0})])
        figures.take([Record(1, 0, 2, 2.0, "step", 2, values())])
        found = figures.step_time()
        assert found is not None
        assert found.steps == 1
        assert found.median.seconds == pytest.approx(0.145)

    def test_are_of_the_newest_steps_however_long_the_run_is(self) -> None:
        figures = Figures()
        for seq in range(1, 501):
            figures.take([Record(1, 0, seq, float(seq), "step", seq, {"seconds": 9.0 if seq <= 480 else 0.1})])
        found = figures.step_time()
        assert found is not None
        assert found.steps == 20
        assert found.median.seconds == pytest.approx(0.1)

    def test_are_of_the_newest_attempt_that_tells_them(self) -> None:
        figures = Figures()
        figures.take([Record(1, 0, 1, 1.0, "step", 1, {"seconds": 1.0})])
        figures.take([Record(2, 0, 1, 9.0, "start", None, {})])
        found = figures.step_time()
        assert found is not None
        assert (found.attempt, found.ranks) == (1, 1)


class TestSentence:
    def test_names_the_slowest_and_what_the_others_wait(self) -> None:
        fast = values(0.1, 0.052, 0.04)
        found = told(fast, fast, fast, values(0.112, 0.04, 0.0))
        assert found.slowest == 3
        assert found.sentence == (
            "Rank 3 on n1 is slowest: it computes 12 % longer than the median rank; "
            "the others wait 40 ms a step for it."
        )

    def test_of_two(self) -> None:
        found = told(values(0.25, 0.0), values(0.1, 0.15, 0.15))
        assert found.sentence == (
            "Rank 0 on n0 is slowest: it computes 2.5 times as long as rank 1, which waits 150 ms a step for it."
        )

    def test_says_nothing_of_waiting_that_is_not_told(self) -> None:
        unknown: Json = {"seconds": 0.2, "forward_s": 0.05, "backward_s": 0.05}
        assert told(unknown, unknown | {"backward_s": 0.1}).sentence == (
            "Rank 1 on n0 is slowest: it computes 50 % longer than rank 0."
        )

    def test_of_equal_ranks(self) -> None:
        equal = values(0.1)
        assert told(equal, values(0.101)).sentence == "All ranks compute equally long, within 1 %."
        late = values(0.1, 0.03, 0.02)
        assert told(late, late, late).sentence == (
            "All ranks compute equally long, within 1 %, yet they wait 20 ms a step for one another: "
            "which of them is late changes."
        )
        assert told(late, late, values(0.1, 0.01, 0.001)).sentence == (
            "All ranks compute equally long, within 1 %, but rank 2 on n1 waits least: what it does besides holds the "
            "others up for 20 ms a step."
        )

    def test_of_one_rank_there_is_none(self) -> None:
        assert told(values()).sentence is None

    def test_the_ranks_that_tell_nothing_are_counted(self) -> None:
        found = told(values(), None, None)
        assert (found.told, found.ranks, found.untold) == (1, 3, "Told by 1 of 3 ranks.")


class TestBars:
    def test_every_rank_of_a_few(self) -> None:
        found = told(*(values(0.1 + rank / 100) for rank in range(4)))
        assert ([bar.rank for bar in found.bars], found.left_out) == ([0, 1, 2, 3], 0)
        assert found.median.rank == 1
        forward = found.spread[0]
        assert forward.name == "forward"
        assert [forward.low, forward.median, forward.high] == pytest.approx([0.03, 0.0345, 0.039])

    def test_of_many_the_fastest_and_the_slowest(self) -> None:
        found = told(*(values(0.1 + (rank * 7 % 50) / 100) for rank in range(50)), steps=1)
        order = sorted(range(50), key=lambda rank: rank * 7 % 50)
        assert [bar.rank for bar in found.bars] == [order[0], *order[::-1][:8]]
        assert (found.left_out, found.slowest, found.median.rank) == (41, order[-1], order[24])
        assert len(found.bars) <= MOST_BARS


class TestExchange:
    def test_tells_what_was_measured_and_planned(self) -> None:
        figures = Figures()
        figures.take([Record(1, 0, 1, 1.0, "step", 1, values(communication_s=0.12, gradient_bytes=102_341_017))])
        isolation: Json = {
            "piece_bytes": [65536, 1 << 20], "seconds_per_piece": [1e-3, 9e-3], "bytes_per_s": 118e6, "latency_s": 2e-4,
        }  # fmt: skip
        figures.take([Record(1, 0, 2, 2.0, "isolation", None, isolation)])
        tuning: Json = {
            "piece_bytes": 1 << 20, "credit": 2, "cycle_time_ms": 1.0, "pieces": 98, "transport": "horovod",
            "why": "the link is full by two pieces.", "document": "{}",
        }  # fmt: skip
        figures.take([Record(1, 0, 3, 3.0, "tuning", None, tuning)])
        figures.take([Record(1, 0, 4, 2.5, "tuning", None, {"credit": 7})])
        found = figures.step_time()
        assert found is not None
        assert found.exchange == (
            "Gradients (97.6 MiB) are under way for 120 ms of a step; the training waits 40 ms for them. "
            "Communication alone: 118 MB/s, 200 µs for the smallest piece. "
            "Gradients go in 98 pieces a step of at most 1 MiB, 2 under way at once, a cycle of 1 ms, over horovod "
            "(the link is full by two pieces)."
        )

    def test_what_is_of_no_use_is_left_out(self) -> None:
        figures = Figures()
        figures.take([Record(1, 0, 1, 1.0, "step", 1, values())])
        figures.take([Record(1, 0, 2, 2.0, "isolation", None, {"bytes_per_s": "NaN", "piece_bytes": ["a", "NaN"]})])
        figures.take(
            [Record(1, 0, 3, 3.0, "tuning", None, {"credit": 2, "piece_bytes": -1, "why": "\ud800\x00", "pieces": []})]
        )
        found = figures.step_time()
        assert found is not None
        assert found.exchange == "Gradients go in pieces, 2 under way at once."


class TestGetJobMetrics:
    def test_a_restart_changes_nothing(
        self,
        api: TestClient,
        app: Application,
        job: Json,
        run_of: Callable[[Json], HandMadeRun],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        url = f"/api/v1/jobs/{job['id']}/metrics"
        assert api.get(url).json()["step_time"] is None
        monkeypatch.setattr(figures_module, "_STORE_AFTER", 1)
        monkeypatch.setattr(figures_module, "_NUMBERS_A_RECORD", 1000)
        hand = run_of(job)
        hand.spool(*(hand.line(rank, kind="start", node=f"n{rank}") for rank in range(2)))
        hand.spool(hand.line(0, kind="tuning", piece_bytes=1 << 20, credit=2))
        for step in range(1, 31):
            hand.spool(hand.line(0, step=step, **values(0.1, 0.052, 0.04, communication_s=0.1)))
            hand.spool(hand.line(1, step=step, **values(0.112, 0.04, 0.0, communication_s=0.1)))
        read_spools(app, hand.id, Path(hand.run))
        found = api.get(url).json()["step_time"]
        assert found["sentence"] == (
            "Rank 1 on n1 is slowest: it computes 12 % longer than rank 0, which waits 40 ms a step for it."
        )
        assert found["exchange"].endswith("Gradients go in pieces of at most 1 MiB, 2 under way at once.")
        app.figures = FiguresCache()
        assert api.get(url).json()["step_time"] == found
        (shares,) = {row["exposed_share"] for row in api.get(url).json()["by_rank"] if row["rank"] == 0}
        assert shares == pytest.approx(0.052 / 0.157)
