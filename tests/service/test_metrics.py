"""Figures: from records to series, and ``GET /jobs/{id}/metrics``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.record import Record
from lockstep_service.metrics.schemas import Series
from lockstep_service.metrics.thinning import thin
from lockstep_slurm.job.identity import new_job_id

from .conftest import HandMadeRun

Json = dict[str, Any]


def record(
    rank: int, seq: int, step: int | None = None, *, attempt: int = 1, kind: str = "step", **values: Any
) -> Record:
    return Record(attempt, rank, seq, 1764000000.0 + seq, kind, step, json.dumps(values))


def series(records: list[Record], name: str, *, over: frozenset[int] = frozenset(), points: int = 100) -> Series:
    figures = Figures()
    for one in records:
        figures.add(one)
    return next(one for one in figures.series(points, over) if one.name == name)


class TestFigures:
    def test_losses_are_averaged_and_rates_added_over_the_ranks(self) -> None:
        records = [record(0, 1, 1, loss=1.0, samples_per_s=10.0), record(1, 1, 1, loss=3.0, samples_per_s=20.0)]
        loss, rate = series(records, "loss"), series(records, "samples_per_s")
        assert (loss.value, loss.min, loss.max, loss.ranks, loss.aggregate) == ([2.0], [1.0], [3.0], 2, "mean")
        assert (rate.value, rate.aggregate) == ([30.0], "sum")

    def test_a_step_waits_for_all_ranks_until_the_attempt_is_over(self) -> None:
        records = [record(0, 1, 1, loss=1.0), record(1, 1, 1, loss=1.0), record(0, 2, 2, loss=5.0)]
        assert series(records, "loss").step == [1]
        assert series(records, "loss", over=frozenset({1})).step == [1, 2]

    def test_a_sum_never_leaves_a_rank_out(self) -> None:
        records = [
            record(0, 1, 1, samples_per_s=1.0),
            record(1, 1, 1, samples_per_s=1.0),
            record(0, 2, 2, samples_per_s=1.0),
        ]
        assert series(records, "samples_per_s", over=frozenset({1})).step == [1]

    def test_a_script_that_reports_from_one_rank_only_is_shown(self) -> None:
        records = [record(0, 1, kind="start", node="a"), record(1, 1, kind="start", node="b"), record(0, 2, 1, mine=7)]
        assert series(records, "mine").value == [7.0]

    def test_nan_is_a_gap_and_not_a_number(self) -> None:
        found = series([record(0, 1, 1, loss="NaN"), record(0, 2, 2, loss=1.0)], "loss")
        assert (found.step, found.value, found.min) == ([1, 2], [None, 1.0], [None, 1.0])

    def test_texts_and_lists_are_not_drawn(self) -> None:
        figures = Figures()
        figures.add(record(0, 1, 1, note="hello", list=[1, 2], parameters_sha256="00"))
        assert figures.series(10) == []

    def test_an_evaluations_loss_is_told_apart(self) -> None:
        records = [record(0, 1, 1, loss=1.0), record(0, 2, 1, kind="evaluation", loss=2.0, accuracy=0.5)]
        assert series(records, "evaluation_loss").value == [2.0]
        assert series(records, "accuracy").kind == "evaluation"
        assert series(records, "loss").value == [1.0]

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12), st.sampled_from([1.0, 2.5, "NaN"])), max_size=40))
    def test_looking_in_between_changes_nothing(self, found: list[tuple[int, int, float | str]]) -> None:
        records = [record(rank, seq, step, loss=loss) for seq, (rank, step, loss) in enumerate(found, 1)]
        looked, fresh = Figures(), Figures()
        for one in records:
            looked.add(one)
            looked.series(10)
        for one in records:
            fresh.add(one)
        for over in (frozenset[int](), frozenset({1})):
            assert looked.series(10, over) == fresh.series(10, over)

    def test_attempts_are_series_of_their_own(self) -> None:
        figures = Figures()
        figures.add(record(0, 1, 1, loss=1.0))
        figures.add(record(0, 1, 1, attempt=2, loss=2.0))
        assert [(one.attempt, one.value) for one in figures.series(10)] == [(1, [1.0]), (2, [2.0])]

    def test_each_ranks_newest(self) -> None:
        figures = Figures()
        figures.add(record(0, 1, kind="start", node="node1"))
        figures.add(record(0, 3, 2, loss=0.5, communication_s=1, seconds=2))
        figures.add(record(0, 2, 1, loss=0.9))
        figures.add(record(0, 4, kind="gap", dropped=12))
        (rank,) = figures.by_rank()
        assert (rank.node, rank.step, rank.loss, rank.communication_share, rank.dropped) == ("node1", 2, 0.5, 0.5, 12)

    @given(
        st.permutations([record(rank, seq, seq, loss=float(rank + seq)) for rank in range(2) for seq in range(1, 5)])
    )
    def test_the_order_in_which_records_come_does_not_matter(self, records: list[Record]) -> None:
        assert series(records, "loss").value == [1.5, 2.5, 3.5, 4.5]


class TestThin:
    values = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=300)

    @given(values, st.integers(2, 50))
    def test_at_most_so_many_in_order_with_the_ends(self, values: list[float | None], points: int) -> None:
        kept = thin(values, values, values, points)
        assert len(kept) <= max(points, 2)
        assert kept == sorted(set(kept))
        if values:
            assert kept[0] == 0
            assert kept[-1] == len(values) - 1

    @given(values, st.integers(5, 50))
    def test_peaks_and_gaps_stay(self, values: list[float | None], points: int) -> None:
        kept = [values[i] for i in thin(values, values, values, points)]
        known = [value for value in values if value is not None]
        if known:
            assert max(known) == max(value for value in kept if value is not None)
            assert min(known) == min(value for value in kept if value is not None)
        assert (None in values) == (None in kept)

    @given(st.lists(st.floats(0, 1), max_size=50))
    def test_few_points_stay_as_they_are(self, values: list[float]) -> None:
        assert thin(values, values, values, 50) == list(range(len(values)))


class TestGetJobMetrics:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"/api/v1/jobs/{job['id']}/metrics").status_code == 401

    def test_none(self, api: TestClient) -> None:
        assert api.get(f"/api/v1/jobs/{new_job_id()}/metrics").status_code == 404

    def test_grows_with_what_comes_in(
        self, api: TestClient, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        url = f"/api/v1/jobs/{job['id']}/metrics"
        empty = api.get(url)
        assert (empty.json()["revision"], empty.json()["series"]) == (0, [])
        hand = run_of(job)
        for step in range(1, 4):
            hand.spool(hand.line(step=step, loss=1.0 / step))
            read_spools(app, hand.id, Path(hand.run))
            found = api.get(url, headers={"If-None-Match": empty.headers["etag"]})
            assert found.json()["series"][0]["step"] == list(range(1, step + 1))
        assert api.get(url, headers={"If-None-Match": found.headers["etag"]}).status_code == 304
        assert len(api.get(url, params={"points": 2}).json()["series"][0]["step"]) == 2
