"""One line over all attempts: of steps that were done again, as they were done last, and with every peak."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.jobs import repository as jobs
from lockstep_service.metrics import figures as figures_module
from lockstep_service.metrics.figures import ROOM, Figures
from lockstep_service.metrics.record import Record
from lockstep_service.metrics.schemas import Series
from lockstep_service.tables import AttemptRow

from .conftest import HandMadeRun

Json = dict[str, Any]


class Told:
    """Records of attempts, as their ranks would tell them one after another."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.seqs: dict[tuple[int, int], int] = {}

    def add(self, attempt: int, kind: str, step: int | None, rank: int = 0, **values: Any) -> None:
        seq = self.seqs[attempt, rank] = self.seqs.get((attempt, rank), 0) + 1
        self.records.append(Record(attempt, rank, seq, 1e9 * attempt + seq, kind, step, values))

    def steps(self, attempt: int, first: int, last: int, *, every: int = 1, **values: float) -> Told:
        for step in range(first, last + 1, every):
            given: Json = values or {"loss": 100.0 * attempt + step}
            self.add(attempt, "step", step, **given)
        return self

    def figures(self) -> Figures:
        found = Figures()
        found.take(self.records)
        return found

    def line(self, name: str = "loss", points: int = 10_000) -> Series:
        """The joined line of this figure, of attempts of which all but the newest are over."""
        attempts = {attempt for attempt, _ in self.seqs}
        found = self.figures().joined(points, frozenset(attempts - {max(attempts)}), attempts)
        return next(one for one in found if one.name == name)


def owners(found: Series) -> list[tuple[int, int]]:
    """By attempt how many points are its."""
    ends = [*(part.first for part in found.parts), len(found.step)]
    return [(part.attempt, end - begin) for part, (begin, end) in zip(found.parts, pairwise(ends), strict=True)]


def test_steps_that_a_later_attempt_did_again_are_as_it_did_them() -> None:
    told = Told().steps(1, 1, 10)
    told.add(2, "resume", 6, saved_by=1)
    found = told.steps(2, 7, 12).line()
    assert found.step == list(range(1, 13))
    assert found.value == [101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 207.0, 208.0, 209.0, 210.0, 211.0, 212.0]
    assert owners(found) == [(1, 6), (2, 6)]
    (first, second) = told.figures().begun({1, 2})
    assert (first.step, first.resumed_from, first.done_again) == (1, None, 0)
    assert (second.step, second.resumed_from, second.done_again) == (7, 6, 4)
    assert [(one.attempt, len(one.step)) for one in told.figures().series(100) if one.name == "loss"] == [
        (1, 10), (2, 6),
    ]  # fmt: skip


def test_what_was_lost_is_gone_before_the_next_attempt_has_done_a_step() -> None:
    told = Told().steps(1, 1, 10)
    told.add(1, "evaluation", 9, accuracy=0.9)
    told.add(1, "evaluation", 5, accuracy=0.5)
    told.add(2, "resume", 6)
    assert told.line().step == [1, 2, 3, 4, 5, 6]
    assert told.line("accuracy").step == [5]


def test_an_attempt_that_began_anew_replaces_everything() -> None:
    found = Told().steps(1, 1, 10).steps(2, 1, 3).line()
    assert (found.step, owners(found)) == ([1, 2, 3], [(2, 3)])


def test_an_attempt_that_was_taken_back_takes_back_the_one_before_it() -> None:
    told = Told().steps(1, 1, 10)
    told.add(2, "resume", 8)
    told.steps(2, 9, 14)
    told.add(3, "resume", 4)  # what attempt 2 had saved could not be read
    found = told.steps(3, 5, 6).line()
    assert found.value == [101.0, 102.0, 103.0, 104.0, 305.0, 306.0]
    assert [one.done_again for one in told.figures().begun({1, 2, 3})] == [0, 2, 10]


def test_a_figure_of_every_tenth_step_ends_where_the_checkpoint_was() -> None:
    told = Told().steps(1, 10, 100, every=10)
    told.add(2, "resume", 55)
    found = told.steps(2, 60, 120, every=10).line()
    assert found.value == [110.0, 120.0, 130.0, 140.0, 150.0, 260.0, 270.0, 280.0, 290.0, 300.0, 310.0, 320.0]


def test_an_attempt_that_nobody_claimed_is_in_no_line() -> None:
    told = Told().steps(1, 1, 4).steps(7, 2, 3)
    (found,) = told.figures().joined(100, frozenset(), {1})
    assert found.value == [101.0, 102.0, 103.0, 104.0]


def test_what_was_told_without_a_step_cuts_nothing_off() -> None:
    told = Told().steps(1, 1, 4)
    told.add(2, "step", None, rate=0.5)
    told.steps(2, 4, 5)
    assert told.line().value == [101.0, 102.0, 103.0, 204.0, 205.0]


def test_parts_tell_how_many_ranks_each_attempt_had() -> None:
    told = Told().steps(1, 1, 4, samples_per_s=10.0)
    for step in (3, 4):
        told.add(2, "step", step, rank=0, samples_per_s=6.0)
        told.add(2, "step", step, rank=1, samples_per_s=7.0)
    found = told.line("samples_per_s")
    assert found.value == [10.0, 10.0, 13.0, 13.0]
    assert [(part.first, part.ranks) for part in found.parts] == [(0, 1), (2, 2)]


def test_a_long_line_that_is_rolled_up_and_thinned_keeps_the_peaks_that_count() -> None:
    told = Told()
    peaks = {(1, 7001): 50.0, (1, 15_000): 999.0, (2, 14_321): 70.0}  # the second was lost: attempt 2 did it again
    for attempt, first, last in ((1, 1, 16_000), (2, 14_001, 30_000)):
        for step in range(first, last + 1):
            told.add(attempt, "step", step, loss=peaks.get((attempt, step), 0.5))
    figures = Figures()
    for start in range(0, len(told.records), 700):
        figures.take(told.records[start : start + 700])
    assert all(len(curve) <= ROOM for curve in figures.curves)
    (found,) = figures.joined(200, frozenset({1}), {1, 2})
    assert len(found.step) <= 200
    assert {step: value for step, value in zip(found.step, found.value, strict=True) if value != 0.5} == {
        7001: 50.0, 14_321: 70.0,
    }  # fmt: skip
    assert (found.step[0], found.step[-1]) == (1, 30_000)
    assert all(step < 14_001 for step in found.step[: found.parts[1].first])
    assert all(step >= 14_001 for step in found.step[found.parts[1].first :])


def test_what_was_stored_before_there_was_such_a_line_is_read() -> None:
    told = Told().steps(1, 1, 4)
    whole, curves = told.figures().stored()
    ranks, attempts = msgpack.decode(zlib.decompress(whole))
    older = [zlib.compress(msgpack.encode(msgpack.decode(zlib.decompress(body))[:12])) for body in curves.values()]
    found = Figures.of(1, zlib.compress(msgpack.encode([ranks, [*attempts, [1, None, None, None, None]]])), older)
    found.take([Record(2, 0, 1, 2e9, "resume", 2, {})])
    assert found.joined(100, frozenset({1}), {1, 2})[0].step == [1, 2]
    assert found.attempts[1].saved.count == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=6), st.integers(2, 40))
def test_a_line_is_what_a_training_without_interruption_would_have_told(
    attempts: list[tuple[int, int]], points: int
) -> None:
    told, truth, reached = Told(), dict[int, float](), 0
    for number, (back, steps) in enumerate(attempts, 1):
        resumed = max(0, reached - back)
        told.add(number, "start", None, steps=100)
        if resumed:
            told.add(number, "resume", resumed)
        truth = {step: value for step, value in truth.items() if step <= resumed}
        for step in range(resumed + 1, resumed + steps + 1):
            truth[step] = float(number * 1000 + step % 7)
            told.add(number, "step", step, loss=truth[step])
        reached = resumed + steps
    whole, thinned = told.line(), told.line(points=points)
    assert dict(zip(whole.step, whole.value, strict=True)) == truth
    assert whole.step == sorted(whole.step)
    assert len(thinned.step) <= points
    assert truth.items() >= dict(zip(thinned.step, thinned.value, strict=True)).items()
    assert sum(count for _, count in owners(thinned)) == len(thinned.step)


class TestOverTheApi:
    """On both databases: as records come, and after a restart."""

    def test_a_job_that_was_requeued_and_went_on(
        self,
        api: TestClient,
        app: Application,
        job: Json,
        run_of: Callable[[Json], HandMadeRun],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(figures_module, "_STORE_AFTER", 7)
        monkeypatch.setattr(figures_module, "_NUMBERS_A_RECORD", 1000)
        hand = run_of(job)

        def tell(*lines: bytes, attempt: int = 1) -> None:
            hand.spool(*lines, attempt=attempt)
            read_spools(app, hand.id, hand.run)

        def timeline() -> list[tuple[str, int | None, str]]:
            items = api.get(f"/api/v1/jobs/{hand.id}/timeline").raise_for_status().json()["items"]
            return [(one["kind"], one["attempt"], one["text"]) for one in items]

        hand.claim(1, slurm_job_id=12)
        tell(
            hand.line(kind="data", data="digits", path="", staged="", train=1437, held_out=360, classes=10),
            hand.line(
                kind="staging", node="node1", folder="/tmp", copied_bytes=1024, total_bytes=4096, files=3, seconds=2
            ),
        )
        said = api.get(f"/api/v1/jobs/{hand.id}/metrics").json()["data"]
        assert said["sentence"] == "Trains on 1,437 samples of digits and is evaluated on 360, of 10 classes."
        assert said["staging"] == "node1 copies the data to /tmp: 1 KiB of 4 KiB after 2 s."
        assert (said["nodes_staging"], said["copied_bytes"], said["total_bytes"]) == (1, 1024, 4096)
        tell(hand.line(kind="staging", node="node1", copied_bytes=4096, total_bytes=4096, files=3, seconds=5))
        staged = "node1 has copied the data to its own disk: 3 files, 4 KiB, in 5 s."

        saved: Json = {"kind": "checkpoint", "bytes": 3 << 20, "seconds": 0.25, "held_s": 0.01}
        for step in range(1, 301):
            saves = [] if step % 2 else [hand.line(step=step, **saved | {"path": f"step-{step}"})]
            tell(hand.line(step=step, loss=1.0), *saves)
        tell(hand.line(kind="checkpoint", step=301, error="No space left on device"))
        tell(hand.line(kind="checkpoint", step=302, error="Disk quota exceeded"), hand.line(step=304, loss=1.0))
        hand.claim(2, slurm_job_id=12, restart=1)

        tell(
            hand.line(attempt=2, kind="resume", step=300, saved_by=1, ranks=1),
            *(hand.line(attempt=2, step=step, loss=2.0) for step in range(301, 311)),
            hand.line(attempt=2, kind="checkpoint", step=310, bytes=3 << 20, path="step-310"),
            attempt=2,
        )
        summed_up = {"staged", "checkpoint", "not saved", "goes on"}
        first, failed, *rest = [one for one in timeline() if one[0] in summed_up][1:]
        assert timeline()[1] == ("staged", 1, staged)
        assert first == ("checkpoint", 1, self.saves(150, 300))
        assert failed[2] == (
            "Attempt 1 could not save 2 checkpoints, the last of them behind step 302: Disk quota exceeded; the "
            "training goes on, and what was saved before is kept."
        )
        assert rest == [
            ("goes on", 2, "Attempt 2 goes on from the checkpoint of step 300, saved by attempt 1."),
            ("checkpoint", 2, "Attempt 2 saved a checkpoint behind step 310 as step-310, 3 MiB."),
        ]

        tell(hand.line(attempt=2, kind="resume", step=300, saved_by=4, job="another", ranks=1), attempt=2)
        assert timeline()[-1][2].endswith(" from the checkpoint of step 300, saved by attempt 4 of job another.")

        def joined(points: int) -> Json:
            answer = api.get(f"/api/v1/jobs/{hand.id}/metrics", params={"points": points, "joined": True})
            return answer.raise_for_status().json()  # type: ignore[no-any-return]

        found = joined(1000)
        (loss,) = found["series"]
        assert (loss["step"], loss["value"]) == (list(range(1, 311)), [1.0] * 300 + [2.0] * 10)
        assert loss["parts"] == [{"attempt": 1, "first": 0, "ranks": 1}, {"attempt": 2, "first": 300, "ranks": 1}]
        assert found["attempts"][1] == {"attempt": 2, "step": 301, "resumed_from": 300, "done_again": 4}
        assert len(joined(20)["series"][0]["step"]) <= 20
        app.figures._kept.clear()  # as after a restart: from what is stored, and the records since
        assert joined(1000) == found
        apart = api.get(f"/api/v1/jobs/{hand.id}/metrics").json()["series"]
        assert [(one["attempt"], one["step"][-1]) for one in apart] == [(1, 304), (2, 310)]

        # What is read late from the spool of an attempt that has ended stands where it belongs: before its end.
        with app.database.writing() as session:
            row = jobs.lock(session, hand.id)
            assert row is not None
            row.attempts.append(AttemptRow(number=1, ranks=1, nodes=["node1"], exit_code=85))
            jobs.changed(session, row)
        tell(hand.line(step=304, **saved | {"path": "step-304"}))
        kinds = [(kind, attempt) for kind, attempt, _ in timeline()]
        assert kinds.index(("checkpoint", 1)) < kinds.index(("exit", 1))
        assert ("checkpoint", 1, self.saves(151, 304)) in timeline()

    @staticmethod
    def saves(count: int, newest: int) -> str:
        return (
            f"Attempt 1 saved {count} checkpoints behind steps 2 to {newest}, the newest of them as step-{newest}, "
            "3 MiB, written in 250 ms; the training was held up for 10 ms."
        )
