"""Reading spools: whole lines, each once, wherever it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep_service.boundary import Application
from lockstep_service.dispatch import ingest, worklists
from lockstep_service.dispatch.ingest import read_piece, read_spools
from lockstep_service.jobs import repository as jobs
from lockstep_service.metrics import repository
from lockstep_service.tables import AttemptRow
from lockstep_slurm.job.rundir import spool_file

from .conftest import HandMadeRun

Json = dict[str, Any]


def stored(app: Application, job_id: str) -> list[Json]:
    with app.database.reading() as session:
        records = sorted(
            repository.records(session, job_id), key=lambda record: (record.attempt, record.rank, record.seq)
        )
    return [
        {"v": 1, "attempt": one.attempt, "rank": one.rank, "seq": one.seq, "time": one.time, "kind": one.kind,
         "step": one.step, "values": one.values}
        for one in records
    ]  # fmt: skip


def spooled(run: Path) -> list[Json]:
    lines = [line for file in run.glob("spool/*/*.jsonl") for line in file.read_bytes().split(b"\n")[:-1] if line]
    return sorted((json.loads(line) for line in lines), key=lambda one: (one["attempt"], one["rank"], one["seq"]))


def end(app: Application, *hands: HandMadeRun) -> None:
    """As the reconcile loop stores it."""
    with app.database.writing() as session:
        for hand in hands:
            kept = jobs.lock(session, hand.id)
            assert kept is not None
            kept.phase = "ended badly"


class TestReadSpools:
    def test_a_line_that_is_being_written_waits(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        first, second = hand.line(step=1, loss=1.0), hand.line(step=2, loss=2.0)
        file = hand.spool(first, second[:-5])
        read_spools(app, hand.id, hand.run)
        assert len(stored(app, hand.id)) == 1
        with file.open("ab") as opened:
            opened.write(second[-5:])
        read_spools(app, hand.id, hand.run)
        assert stored(app, hand.id) == spooled(hand.run)

    def test_what_was_shipped_before_is_not_stored_twice(
        self, app: Application, browser: TestClient, job: Json, job_token: str, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        lines = [hand.line(step=step, loss=1.0) for step in range(1, 11)]
        hand.spool(*lines)
        browser.post(
            f"/api/v1/jobs/{hand.id}/records",
            content=b"".join(lines[3:7]),
            headers={"Authorization": f"Bearer {job_token}"},
        ).raise_for_status()
        read_spools(app, hand.id, hand.run)
        assert stored(app, hand.id) == spooled(hand.run)

    def test_a_line_that_is_no_record_holds_nothing_up(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        hand = run_of(job)
        hand.spool(hand.line(step=1), b"\x00\x00\x00\n", hand.line(step=2))
        read_spools(app, hand.id, hand.run)
        assert [one["step"] for one in stored(app, hand.id)] == [1, 2]

    def test_one_jobs_files_never_hold_up_another_jobs(
        self, app: Application, api: TestClient, spec: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        odd, good = (run_of(api.post("/api/v1/jobs", json=spec).json()) for _ in range(2))
        odd.spool(odd.line(step=1, loss=7.25).replace(b"7.25", b"1e999"), odd.line(step=2))
        (odd.run / "spool" / "1" / "no\udcff.jsonl").write_bytes(odd.line(step=3))
        good.spool(good.line(step=1))
        end(app, odd, good)
        ingest.unfinished(app, everything=True)
        assert [one["step"] for one in stored(app, odd.id)] == [2]
        assert stored(app, good.id) == spooled(good.run)
        with app.database.reading() as session:
            assert list(worklists.unfinished(session)) == []

    @pytest.mark.parametrize(
        ("kind", "values"),
        [("gap", {"dropped": 1e20}), ("gap", {"dropped": 2**64}), ("resume", {"saved_by": 2**70})],
        ids=["a float", "a whole number", "an attempt"],
    )
    def test_a_number_that_cannot_be_stored_keeps_no_job_from_its_end(
        self,
        kind: str,
        values: Json,
        app: Application,
        api: TestClient,
        spec: Json,
        job: Json,
        job_token: str,
        run_of: Callable[[Json], HandMadeRun],
    ) -> None:
        odd, good = run_of(job), run_of(api.post("/api/v1/jobs", json=spec).json())
        answer = api.post(
            f"/api/v1/jobs/{odd.id}/records",
            content=odd.line(kind=kind, step=1, **values),
            headers={"Authorization": f"Bearer {job_token}"},
        )
        assert answer.status_code == 200
        good.spool(good.line(step=1))
        end(app, odd, good)
        ingest.unfinished(app, everything=True)
        assert stored(app, good.id) == spooled(good.run)
        with app.database.reading() as session:
            assert list(worklists.unfinished(session)) == []
        (rank,) = api.get(f"/api/v1/jobs/{odd.id}/metrics").json()["by_rank"]
        assert rank["dropped"] == (2**63 - 1 if kind == "gap" else 0)

    @pytest.mark.parametrize("phase", ["waiting", "ended badly"])
    def test_a_folder_that_cannot_be_looked_into_holds_up_no_other_job_and_is_told_of_once(
        self,
        app: Application,
        api: TestClient,
        spec: Json,
        run_of: Callable[[Json], HandMadeRun],
        caplog: pytest.LogCaptureFixture,
        phase: str,
    ) -> None:
        odd, good = (run_of(api.post("/api/v1/jobs", json=spec).json()) for _ in range(2))
        good.spool(good.line(step=1))
        (odd.run / "spool").rmdir()
        (odd.run / "spool").symlink_to("spool")
        with app.database.writing() as session:
            for hand in (odd, good):
                kept = jobs.lock(session, hand.id)
                assert kept is not None
                kept.phase = phase if hand is odd else "ended badly"
                if hand is odd and phase == "ended badly":
                    kept.run_dir = str(odd.run.with_name("n" * 300))  # an error of another kind than a link's
        for _ in range(3):
            ingest.unfinished(app, everything=True)
        assert stored(app, good.id) == spooled(good.run)
        assert caplog.text.count(f"the spools of job {odd.id} cannot be read") == 1
        with app.database.reading() as session:
            assert [row.id for row in worklists.unfinished(session)] == [odd.id]

    def test_exit_records_that_cannot_be_looked_for_hide_no_other_jobs(
        self, app: Application, api: TestClient, spec: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        odd, good = (run_of(api.post("/api/v1/jobs", json=spec).json()) for _ in range(2))
        (odd.run / "exit").rmdir()
        (odd.run / "exit").symlink_to("n" * 300)  # leads to no name that any file system has
        with app.database.writing() as session:
            for hand in (odd, good):
                kept = jobs.lock(session, hand.id)
                assert kept is not None
                kept.phase = "running"
                kept.attempts.append(AttemptRow(number=1, ranks=1))
        assert not ingest.new_exits(app)
        good.claim()
        good.end()
        assert ingest.new_exits(app)

    def test_what_a_link_leads_out_to_is_not_read(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun], tmp_path: Path
    ) -> None:
        hand = run_of(job)
        elsewhere = tmp_path / "elsewhere.jsonl"
        elsewhere.write_bytes(hand.line(step=1))
        (hand.run / "spool" / "1").mkdir()
        (hand.run / "spool" / "1" / "node1.jsonl").symlink_to(elsewhere)
        assert read_spools(app, hand.id, hand.run) == 0
        assert stored(app, hand.id) == []

    def test_all_attempts_and_nodes(self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun]) -> None:
        hand = run_of(job)
        hand.spool(hand.line(0, step=1), node="node1")
        hand.spool(hand.line(1, step=1), node="node2")
        hand.spool(hand.line(0, step=1, attempt=2), attempt=2)
        read_spools(app, hand.id, hand.run)
        assert stored(app, hand.id) == spooled(hand.run)

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.integers(1, 400), st.sampled_from(["read", "repeat", "forget"])), max_size=12))
    def test_however_it_is_cut_and_repeated_the_records_are_the_spools(
        self,
        app: Application,
        api: TestClient,
        spec: Json,
        run_of: Callable[[Json], HandMadeRun],
        cuts: list[tuple[int, str]],
    ) -> None:
        """``forget``: the position is lost, as if the database were restored from a copy."""
        hand = run_of(api.post("/api/v1/jobs", json=spec).json())
        whole = b"".join(hand.line(rank, step=step, loss=step / 7) for step in range(1, 8) for rank in range(2))
        written = 0
        for size, then in cuts:
            hand.spool(whole[written : written + size])
            written = min(len(whole), written + size)
            read_spools(app, hand.id, hand.run)
            if then == "repeat":
                read_spools(app, hand.id, hand.run)
            elif then == "forget":
                with app.database.writing() as session:
                    repository.keep_offset(session, hand.id, "1/node1.jsonl", 0)
            assert [one["seq"] for one in stored(app, hand.id) if one["rank"] == 0] == [
                one["seq"] for one in spooled(hand.run) if one["rank"] == 0
            ]
        hand.spool(whole[written:])
        read_spools(app, hand.id, hand.run)
        assert stored(app, hand.id) == spooled(hand.run)


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    line = b'{"v":1,"attempt":1,"rank":0,"seq":1,"time":1,"kind":"step","step":1,"values":{}}\n'
    file = spool_file(tmp_path, 1, "node")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * (5 << 20))
    assert read_piece(file, 0) is None
    with file.open("ab") as opened:
        opened.write(b"\n" + line)
    piece = read_piece(file, 0)
    assert piece is not None
    assert (list(piece.records), piece.end) == ([], (5 << 20) + 1)
    then = read_piece(file, piece.end)
    assert then is not None
    assert len(then.records) == 1


def test_a_piece_ends_behind_a_line_and_is_never_longer_than_it_must(tmp_path: Path) -> None:
    line = b'{"v":1,"attempt":1,"rank":0,"seq":1,"time":1,"kind":"step","step":1,"values":{}}\n'
    file = spool_file(tmp_path, 1, "node")
    file.parent.mkdir(parents=True)
    file.write_bytes(line * 10)
    piece = read_piece(file, 0, limit=len(line) * 3 + 5)
    assert piece is not None
    assert (len(piece.records), piece.end) == (3, 3 * len(line))
    small = read_piece(file, 0, limit=10)
    assert small is not None
    assert small.end == len(line)
    assert read_piece(file, 10 * len(line)) is None
    assert len(line) < ingest._PIECE
