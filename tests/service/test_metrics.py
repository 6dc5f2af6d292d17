"""Figures: from records to series, and ``GET /jobs/{id}/metrics``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.jobs import repository as jobs
from lockstep_service.metrics import figures as figures_module
from lockstep_service.metrics import repository as metrics_repository
from lockstep_service.metrics import service
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.metrics.figures import MOST_CURVES, ROOM, ROOM_IN_ALL, Figures
from lockstep_service.metrics.rank import MOST_HOLES, Rank
from lockstep_service.metrics.record import Record, batch_of
from lockstep_service.metrics.schemas import Series
from lockstep_service.metrics.thinning import thin
from lockstep_service.tables import ChunkRow
from lockstep_slurm.job.identity import new_job_id

from .conftest import HandMadeRun

Json = dict[str, Any]


def record(
    rank: int, seq: int, step: int | None = None, *, attempt: int = 1, kind: str = "step", **values: Any
) -> Record:
    return Record(attempt, rank, seq, 1764000000.0 + seq, kind, step, values)


def series(records: list[Record], name: str, *, over: frozenset[int] = frozenset(), points: int = 100) -> Series:
    figures = Figures()
    figures.take(records)
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
        figures.take([record(0, 1, 1, note="hello", list=[1, 2], parameters_sha256="00")])
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
            looked.take([one])
            looked.series(10)
        fresh.take(records)
        for over in (frozenset[int](), frozenset({1})):
            assert looked.series(10, over) == fresh.series(10, over)

    def test_attempts_are_series_of_their_own(self) -> None:
        figures = Figures()
        figures.take([record(0, 1, 1, loss=1.0)])
        figures.take([record(0, 1, 1, attempt=2, loss=2.0)])
        assert [(one.attempt, one.value) for one in figures.series(10)] == [(1, [1.0]), (2, [2.0])]

    def test_each_ranks_newest(self) -> None:
        figures = Figures()
        figures.take([record(0, 1, kind="start", node="node1")])
        figures.take([record(0, 3, 2, loss=0.5, exposed_s=1, seconds=2)])
        figures.take([record(0, 2, 1, loss=0.9)])
        figures.take([record(0, 4, kind="gap", dropped=12)])
        (rank,) = figures.by_rank()
        assert (rank.node, rank.step, rank.loss, rank.exposed_share, rank.dropped) == ("node1", 2, 0.5, 0.5, 12)

    def test_what_was_dropped_is_counted_as_far_as_it_can_be_stored(self) -> None:
        figures = Figures()
        told: list[Any] = [2.5, -7, "many", [3], 10**400, 1]
        figures.take([record(0, seq, kind="gap", dropped=dropped) for seq, dropped in enumerate(told, 1)])
        assert [rank.dropped for rank in figures.by_rank()] == [3]
        figures.take([record(0, seq, kind="gap", dropped=2**62) for seq in (7, 8, 9)])
        assert [rank.dropped for rank in Figures.of(1, figures.stored()[0], []).by_rank()] == [2**63 - 1]

    def test_a_loss_that_not_every_step_tells_stays(self) -> None:
        figures = Figures()
        figures.take([record(0, 2, 2, samples_per_s=9.0)])
        figures.take([record(0, 1, 1, loss=0.5)])
        (rank,) = figures.by_rank()
        assert (rank.step, rank.loss, rank.samples_per_s) == (2, 0.5, 9.0)

    def test_cpus_are_averaged_over_ranks_and_bytes_over_nodes(self) -> None:
        network: Json = {"received_bytes_per_s": 5e6, "sent_bytes_per_s": 4e6, "received_bytes": 9, "interface": "eth0"}
        records = [
            record(0, 1, 1, kind="usage", node="node1", cpus=2.0, elapsed_s=5.0, cpu_s=10.0, **network),
            record(1, 1, 1, kind="usage", node="node1", cpus=1.0, elapsed_s=5.0, cpu_s=5.0),
        ]
        figures = Figures()
        figures.take(records)
        assert {found.name: found.value for found in figures.series(10)} == {
            "cpus": [1.5], "received_bytes_per_s": [5e6], "sent_bytes_per_s": [4e6],
        }  # fmt: skip
        assert {found.kind for found in figures.series(10)} == {"usage"}
        first, second = figures.by_rank()
        assert (first.cpus, first.received_bytes_per_s, first.node, first.step) == (2.0, 5e6, "node1", None)
        assert (second.cpus, second.received_bytes_per_s) == (1.0, None)

    @given(
        st.permutations([record(rank, seq, seq, loss=float(rank + seq)) for rank in range(2) for seq in range(1, 5)])
    )
    def test_the_order_in_which_records_come_does_not_matter(self, records: list[Record]) -> None:
        assert series(records, "loss").value == [1.5, 2.5, 3.5, 4.5]


class TestLongCurves:
    """A curve of more steps than there is room for."""

    def long(self, values: list[float], *, ranks: int = 1, cuts: int = 700) -> Figures:
        records = [
            record(rank, seq, seq, loss=value if rank == 0 else 0.5)
            for seq, value in enumerate(values, 1)
            for rank in range(ranks)
        ]
        figures = Figures()
        for start in range(0, len(records), cuts):
            figures.take(records[start : start + cuts])
        return figures

    def test_room_does_not_grow_with_the_steps_and_every_peak_stays(self) -> None:
        dice = random.Random(0)
        values = [dice.uniform(0.4, 0.6) for _ in range(50_000)]
        peaks = {number * 777: 100.0 + number for number in range(1, 60)}
        for place, value in peaks.items():
            values[place] = value
        figures = self.long(values)
        (found,) = figures.series(10_000)
        assert len(figures.curves[0]) <= ROOM
        assert 1000 < len(found.step) <= ROOM
        assert (found.step[0], found.step[-1]) == (1, 50_000)
        assert {
            step - 1: value
            for step, value in zip(found.step, found.max, strict=True)
            if value is not None and value > 50
        } == peaks
        assert all(values[step - 1] == value for step, value in zip(found.step, found.value, strict=True))
        (few,) = figures.series(200)
        assert len(few.step) <= 200
        assert max(value for value in few.max if value is not None) == max(peaks.values())

    def test_a_nan_is_never_thinned_away(self) -> None:
        values: list[Any] = [0.5] * 20_000
        values[6001] = "NaN"
        (found,) = self.long(values).series(100)
        assert found.step[found.value.index(None)] == 6002

    def test_what_a_rank_tells_late_of_steps_that_are_gone_is_in_the_range(self) -> None:
        figures = self.long([0.5] * 20_000)
        late = [record(1, seq, seq, loss=0.5 if seq != 3333 else 9.0) for seq in range(1, 20_001)]
        figures.take(late)
        (found,) = figures.series(10_000)
        assert found.ranks == 2
        assert max(value for value in found.max if value is not None) == 9.0
        assert found.step[-1] == 20_000

    def test_what_comes_late_and_is_new_finds_its_place(self) -> None:
        figures = self.long([0.5] * 20)
        figures.take([record(0, 40, 40, loss=1.0), record(0, 30, 30, loss=2.0)])
        (found,) = figures.series(100)
        assert (found.step[-2:], found.value[-2:]) == ([30, 40], [2.0, 1.0])

    def test_many_curves_share_the_room(self) -> None:
        figures = Figures()
        values: Json = {f"norm_{number}": 0.5 for number in range(200)}
        for start in range(0, 6000, 500):
            figures.take([record(0, seq, seq, **values) for seq in range(start + 1, start + 501)])
        assert sum(len(curve) for curve in figures.curves) <= ROOM_IN_ALL + 500 * len(values)

    def test_too_many_figures_are_stored_and_not_drawn(self) -> None:
        figures = Figures()
        values: Json = {f"norm_{number}": 0.5 for number in range(MOST_CURVES + 100)}
        assert figures.take([record(0, 1, 1, **values)]) == [True]
        assert len(figures.series(10)) == MOST_CURVES

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.sampled_from([1.0, "NaN", 3])), max_size=60))
    def test_what_was_stored_goes_on_as_if_it_never_was(self, found: list[tuple[int, int, Any]]) -> None:
        seqs = Counter[int]()
        records = []
        for rank, step, loss in found:
            seqs[rank] += 1
            kinds = ["step", "evaluation", "usage", "start"]
            values: Json = {"loss": loss, "samples_per_s": 2.0, "epoch": 0.5, "cpus": 1.0, "cpu_s": 4, "elapsed_s": 2}
            records.append(record(rank, seqs[rank], step, kind=kinds[step % 4], **values))
        whole, cut = Figures(), Figures()
        whole.take(records)
        bodies: dict[int, bytes] = {}
        for start in range(0, len(records), 7):
            cut.take(records[start : start + 7])
            body, changed = cut.stored()
            bodies |= changed
            cut = Figures.of(cut.revision, body, [bodies[number] for number in sorted(bodies)])
        assert cut.series(50) == whole.series(50)
        assert cut.by_rank() == whole.by_rank()
        assert cut.last(1) == whole.last(1)


class TestSeen:
    @given(st.permutations(range(1, 30)), st.integers(0, 28))
    def test_each_number_is_new_once_and_holes_are_known(self, seqs: list[int], missing: int) -> None:
        rank, stored = Rank(1, 0), set[int]()
        for seq in [*seqs[:missing], *seqs]:
            assert rank.see(seq) == (seq not in stored)
            stored.add(seq)
            assert rank.contiguous == next(number for number in range(1, 32) if number not in stored) - 1
        assert (rank.contiguous, rank.beyond) == (29, [])

    def test_holes_have_an_end(self) -> None:
        rank = Rank(1, 0)
        assert [rank.see(seq) for seq in range(2, 2 * MOST_HOLES + 6, 2)] == [True] * MOST_HOLES + [False] * 2


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


class TestFiguresCache:
    """Memory, and what is stored: whoever is killed when, the figures are the records'."""

    def send(self, app: Application, hand: HandMadeRun, *lines: bytes) -> None:
        hand.spool(*lines)
        read_spools(app, hand.id, hand.run)

    def shown(self, app: Application, hand: HandMadeRun) -> tuple[list[Series], Json]:
        with app.database.reading() as session:
            row = jobs.get(session, hand.id)
            assert row is not None
            return app.figures.read(session, row, 100).series, row.last

    def fresh(self, app: Application, hand: HandMadeRun) -> tuple[list[Series], Json]:
        return self.shown(replace(app, figures=FiguresCache()), hand)

    def test_a_restart_in_the_middle_changes_nothing(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(figures_module, "_STORE_AFTER", 7)
        monkeypatch.setattr(figures_module, "_NUMBERS_A_RECORD", 1000)
        hand = run_of(job)
        for step in range(1, 20):
            self.send(app, hand, *(hand.line(rank, step=step, loss=step / 7, mine=1) for rank in range(2)))
            assert self.fresh(app, hand) == self.shown(app, hand)
        with app.database.reading() as session:
            assert 0 < metrics_repository.figures(session, hand.id).revision < 19

    def test_what_was_not_committed_is_forgotten(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        self.send(app, hand, hand.line(step=1, loss=1.0))
        lost = batch_of(hand.line(step=2, loss=7.0))
        assert lost is not None

        def lose() -> None:
            with app.database.writing() as session:
                row = jobs.lock(session, hand.id)
                assert row is not None
                service.take_in(app, session, row, lost, ())
                raise OSError("no room on the disk")

        with pytest.raises(OSError, match="no room"):
            lose()
        assert self.shown(app, hand)[0][0].value == [1.0]
        self.send(app, hand, lost.lines)
        assert self.shown(app, hand)[0][0].value == [1.0, 7.0]
        assert self.fresh(app, hand) == self.shown(app, hand)

    def test_two_processes_over_one_database_know_the_same(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand, other = run_of(job), replace(app, figures=FiguresCache())
        for step in range(1, 9):
            self.send((app, other)[step % 2], hand, hand.line(step=step, loss=float(step)))
        assert self.shown(app, hand) == self.shown(other, hand) == self.fresh(app, hand)
        assert self.shown(app, hand)[0][0].step == list(range(1, 9))

    def test_one_that_fell_behind_what_was_pruned_starts_from_what_is_stored(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand, other = run_of(job), replace(app, figures=FiguresCache())
        self.send(app, hand, hand.line(step=1, loss=1.0))
        self.send(other, hand, hand.line(step=2, loss=2.0))
        with other.database.writing() as session:
            row = jobs.lock(session, hand.id)
            assert row is not None
            service.settle(other, session, row, ())
            session.execute(delete(ChunkRow).where(ChunkRow.job_id == hand.id))
        self.send(app, hand, hand.line(step=3, loss=3.0))
        assert self.shown(app, hand)[0][0].value == [1.0, 2.0, 3.0]
        assert self.fresh(app, hand) == self.shown(app, hand)


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
