"""One cycle over many jobs: three answers told apart, and a cost that is of what is new; Slurm's answers are scripted.

What real Slurms answer in these cases is in tests/clients and tests/end_to_end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from lockstep_service.auth.service import token_hash
from lockstep_service.boundary import Application
from lockstep_service.dispatch import reconcile as module
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.watched import Watch, Watched
from lockstep_service.jobs import repository
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob
from lockstep_slurm.job.rundir import claim_file

from .conftest import MANY, Answers, HandMadeRun, row, run_of


def change(app: Application, job: SlurmJob, **columns: object) -> None:
    """Puts its row into a state that takes long to come about; the reconcile loop is not told."""
    with app.database.writing() as session:
        found = repository.lock(session, row(app, job).id)
        assert found is not None
        for name, value in columns.items():
            setattr(found, name, value)


@contextmanager
def statements(app: Application) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    said: list[str] = []

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(app.database.engine, "before_cursor_execute", hear)
    try:
        yield said
    finally:
        event.remove(app.database.engine, "before_cursor_execute", hear)


def hide_runs(app: Application) -> None:
    """No run directory can be read any more: a job whose files are looked at would show it."""
    app.runs.rename(app.runs.with_name("elsewhere"))
    app.runs.write_text("not a folder")


class TestWithoutNews:
    def test_a_cycle_takes_a_few_statements_and_no_file(
        self, app: Application, jobs: list[SlurmJob], answers: Answers, caplog: pytest.LogCaptureFixture
    ) -> None:
        hide_runs(app)
        with statements(app) as said:
            assert not reconcile(app)
        assert answers.asked == ["queue"]
        assert len(said) <= 4, said
        assert caplog.text == ""
        assert all((found := row(app, job)).observed_at is not None and found.stale_since is None for job in jobs)

    def test_an_estimate_that_moves_a_little_is_none(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        start = now() + timedelta(hours=1)
        answers.tell(jobs[0], started=start)
        assert not reconcile(app), "an estimate alone is nothing that moves"
        kept, changed = row(app, jobs[0]).expected_start, row(app, jobs[0]).changed_at
        assert kept == start
        for seconds in (10, -20, 50):
            answers.tell(jobs[0], started=start + timedelta(seconds=seconds))
            reconcile(app)
        assert (row(app, jobs[0]).expected_start, row(app, jobs[0]).changed_at) == (kept, changed)
        answers.tell(jobs[0], started=start + timedelta(minutes=5))
        reconcile(app)
        assert row(app, jobs[0]).expected_start == start + timedelta(minutes=5)

    def test_after_a_restart_nothing_is_written_for_what_the_rows_say_already(
        self, app: Application, jobs: list[SlurmJob]
    ) -> None:
        before = [row(app, job).changed_at for job in jobs]
        app.watch = Watch()
        hide_runs(app)
        with statements(app) as said:
            assert not reconcile(app)
        assert len(said) <= 6, said
        assert [row(app, job).changed_at for job in jobs] == before

    def test_those_are_noted_first_whose_last_note_is_oldest(
        self, app: Application, jobs: list[SlurmJob], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_OBSERVED", MANY // 4)
        began = now()
        for _ in range(4):
            reconcile(app)
        assert all((noted := row(app, job).observed_at) is not None and noted > began for job in jobs)


class TestNews:
    def test_is_taken_of_those_that_have_it_alone(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        before = {job.id: row(app, job).changed_at for job in jobs}
        answers.tell(jobs[3], state="RUNNING", reason=None, nodes=("node1",))
        assert reconcile(app)
        assert (row(app, jobs[3]).phase, row(app, jobs[3]).slurm_nodes) == ("running", ["node1"])
        assert [job.id for job in jobs if row(app, job).changed_at != before[job.id]] == [jobs[3].id]

    def test_what_somebody_else_changed_is_looked_at_anew(self, app: Application, jobs: list[SlurmJob]) -> None:
        with app.database.writing() as session:
            changed = repository.lock(session, row(app, jobs[0]).id)
            assert changed is not None
            changed.phase, changed.state = "running", "RUNNING"
            repository.changed(session, changed)
        reconcile(app)
        assert (row(app, jobs[0]).phase, row(app, jobs[0]).state) == ("waiting", "PENDING")

    def test_a_claim_and_an_exit_record_are_seen_without_slurms_saying_so(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        answers.tell(jobs[0], state="RUNNING", reason=None)
        reconcile(app)
        hand = run_of(app, jobs[0])
        hand.claim(slurm_job_id=jobs[0].id)
        assert reconcile(app)
        assert [attempt.number for attempt in row(app, jobs[0]).attempts] == [1]
        hand.end(code=3)
        assert reconcile(app)
        assert row(app, jobs[0]).attempts[0].exit_code == 3
        assert str(row(app, jobs[0]).reason).startswith("It is ending")

    def test_folders_in_which_nothing_was_put_are_not_read_again(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        hand = run_of(app, jobs[0])
        hand.claim(slurm_job_id=jobs[0].id)
        answers.tell(jobs[0], state="RUNNING", reason=None)
        reconcile(app)
        quiet = time.time() - 100
        for change in ("nothing", "not JSON"):
            claim_file(hand.run, 1).write_text(claim_file(hand.run, 1).read_text() if change == "nothing" else change)
            for folder in ("claims", "exit"):
                os.utime(hand.run / folder, (quiet, quiet))
            with statements(app) as said:
                assert not reconcile(app)
        assert len(said) <= 4, said
        assert app.watch.jobs[hand.id].settled

    def test_a_folder_that_cannot_be_looked_into_holds_up_no_other_job(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        odd, good = jobs[:2]
        hand = run_of(app, odd)
        answers.tell(odd, state="RUNNING", reason=None)
        reconcile(app)
        claims = hand.run / "claims"
        claims.rmdir()
        claims.symlink_to("claims")
        answers.tell(good, state="CANCELLED", reason=None)
        assert reconcile(app)
        assert (row(app, good).phase, row(app, odd).phase) == ("ended badly", "running")
        claims.unlink()
        claims.mkdir()
        hand.claim(slurm_job_id=odd.id)
        reconcile(app)
        assert [attempt.number for attempt in row(app, odd).attempts] == [1]

    def test_what_a_constraint_refuses_of_one_job_holds_up_no_other(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        with app.database.writing() as session:
            session.execute(text("CREATE UNIQUE INDEX one_attempt_a_slurm_job ON attempts (slurm_job_id)"))
        *twins, good = jobs[:3]
        for job in twins:
            run_of(app, job).claim(slurm_job_id=7)
            answers.tell(job, state="RUNNING", reason=None)
        answers.tell(good, state="CANCELLED", reason=None)
        assert reconcile(app)
        assert row(app, good).phase == "ended badly"
        found = sorted((row(app, job).phase, len(row(app, job).attempts)) for job in twins)
        assert found == [("running", 1), ("waiting", 0)]

    def test_too_much_at_once_is_taken_over_several_cycles_and_what_only_waits_comes_last(
        self, app: Application, jobs: list[SlurmJob], answers: Answers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_MOST", MANY // 4)
        for job in jobs:
            answers.tell(job, reason="Resources")
        answers.tell(jobs[-1], state="CANCELLED", reason=None)
        assert reconcile(app)
        assert row(app, jobs[-1]).phase == "ended badly"
        told = sum(row(app, job).slurm_reason == "Resources" for job in jobs)
        assert told == MANY // 4 - 1
        for _ in range(4):
            reconcile(app)
        assert all(row(app, job).slurm_reason == "Resources" for job in jobs[:-1])
        assert not reconcile(app)


class TestAbsence:
    def test_a_name_that_is_not_its_own_is_another_job(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        # The controller lost its memory, and gives the numbers out again.
        answers.queue = [replace(job, name="somebody.else", state="FAILED") for job in jobs]
        reconcile(app)
        assert {row(app, job).phase for job in jobs} == {"unknown"}

    def test_records_are_asked_for_less_and_less_often(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        assert answers.queue is not None
        answers.queue = answers.queue[1:]
        for _ in range(2):
            reconcile(app)
        assert answers.asked == ["queue", "records"] * 2
        gone = app.watch.jobs[row(app, jobs[0]).id]
        assert gone.missed_at is not None
        gone.missed_at -= 3600
        answers.asked.clear()
        reconcile(app)
        assert answers.asked == ["queue"]
        assert row(app, jobs[0]).phase == "unknown"
        answers.queue.append(replace(jobs[0], state="RUNNING", reason=None))
        reconcile(app)
        assert row(app, jobs[0]).phase == "running"
        assert app.watch.jobs[gone.id].missed_at is None

    def test_a_record_ends_what_the_queue_has_forgotten(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        assert answers.queue is not None
        answers.queue = answers.queue[1:]
        answers.records = [replace(jobs[0], state="TIMEOUT", reason=None)]
        reconcile(app)
        assert (row(app, jobs[0]).phase, row(app, jobs[0]).state) == ("ended badly", "TIMEOUT")

    @pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
    def test_a_record_of_no_end_is_no_word_of_a_job_that_the_queue_has_lost(
        self, app: Application, api: TestClient, jobs: list[SlurmJob], answers: Answers, state: str
    ) -> None:
        """As slurmdbd has it where slurmctld lost its state, or the completion file where a requeue came last."""
        ends, goes = jobs[:2]
        hand = run_of(app, ends)
        hand.claim(slurm_job_id=ends.id)
        for job in (ends, goes):
            answers.tell(job, state="RUNNING", reason=None)
        reconcile(app)
        hand.end(code=3)
        assert answers.queue is not None
        answers.queue = answers.queue[2:]
        answers.records = [replace(job, state=state, reason=None) for job in (ends, goes)]
        reconcile(app)
        assert [row(app, job).phase for job in (ends, goes)] == ["ended badly", "unknown"]
        assert "exit code 3" in str(row(app, ends).reason)
        api.post(f"/api/v1/jobs/{row(app, goes).id}/cancel").raise_for_status()
        pass_on_cancels(app)
        assert row(app, goes).phase == "ended badly"

    def test_a_record_may_be_late_to_tell_of_the_end(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        app.settings = app.settings.model_copy(update={"exit_grace_seconds": 60.0})
        late, lost = jobs[:2]
        for job in (late, lost):
            hand = run_of(app, job)
            hand.claim(slurm_job_id=job.id)
            hand.end(code=None, signal=15)
        assert answers.queue is not None
        answers.queue = answers.queue[2:]
        answers.records = [replace(job, state="RUNNING", reason=None) for job in (late, lost)]
        reconcile(app)
        assert [row(app, job).phase for job in (late, lost)] == ["running", "running"]
        answers.records[0] = replace(late, state="TIMEOUT", reason=None)
        for job in (late, lost):
            known = app.watch.jobs[row(app, job).id]
            known.records_at = 0.0  # it is time to ask again
            if job is lost:
                assert known.missed_at is not None
                known.missed_at -= 61
        reconcile(app)
        assert [(row(app, job).phase, row(app, job).state) for job in (late, lost)] == [
            ("ended badly", "TIMEOUT"),
            ("ended badly", "RUNNING"),
        ]

    @pytest.mark.parametrize("way", ["requests", "files"])
    def test_ranks_that_report_are_alive_whatever_slurm_has_forgotten(
        self, app: Application, api: TestClient, jobs: list[SlurmJob], answers: Answers, way: str
    ) -> None:
        hand = run_of(app, jobs[0])
        change(app, jobs[0], token_hash=token_hash("its own"))

        def report(step: int) -> None:
            if way == "files":
                hand.spool(hand.line(step=step))
                assert read_spools(app, hand.id, hand.run)
            else:
                url, headers = f"/api/v1/jobs/{hand.id}/records", {"Authorization": "Bearer its own"}
                api.post(url, content=hand.line(step=step), headers=headers).raise_for_status()

        def told() -> tuple[str, bool]:
            reconcile(app)
            return row(app, jobs[0]).phase, "still report" in str(row(app, jobs[0]).reason)

        assert answers.queue is not None
        answers.queue = answers.queue[1:]
        report(1)
        assert told() == ("running", True)
        change(app, jobs[0], heard_at=now() - timedelta(minutes=2))
        assert told() == ("unknown", False)
        assert told() == ("unknown", False)
        report(2)  # a step, or an evaluation, took longer
        assert told() == ("running", True)

    def test_what_lay_in_a_spool_for_long_is_no_sign_of_life(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        hand = run_of(app, jobs[0])
        written = time.time() - 120
        os.utime(hand.spool(hand.line(step=1)), (written, written))
        assert answers.queue is not None
        answers.queue = answers.queue[1:]
        assert read_spools(app, hand.id, hand.run)
        reconcile(app)
        assert row(app, jobs[0]).phase == "unknown"


class TestSilence:
    def test_changes_nothing_but_that_it_is_stale_and_is_over_with_the_next_answer(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        told, answers.queue = answers.queue, None
        before = [row(app, job).phase for job in jobs]
        assert reconcile(app)
        since = [row(app, job).stale_since for job in jobs]
        assert None not in since
        assert not reconcile(app)
        assert [row(app, job).stale_since for job in jobs] == since
        assert [row(app, job).phase for job in jobs] == before
        answers.queue = told
        reconcile(app)
        assert {row(app, job).stale_since for job in jobs} == {None}

    def test_of_the_records_is_none_of_the_queue(
        self, app: Application, jobs: list[SlurmJob], answers: Answers
    ) -> None:
        assert answers.queue is not None
        answers.queue, answers.records = answers.queue[1:], None
        reconcile(app)
        assert row(app, jobs[0]).stale_since is not None
        assert {row(app, job).stale_since for job in jobs[1:]} == {None}


class TestRunsByHand:
    def test_an_id_that_was_used_again_is_not_the_run(
        self, api: TestClient, app: Application, answers: Answers, made_by_hand: Callable[[], HandMadeRun]
    ) -> None:
        hand = made_by_hand()
        hand.claim(slurm_job_id=7)
        mine = SlurmJob(7, "digits", "RUNNING", submitted=now() - timedelta(seconds=5), started=now())
        answers.queue = [mine]
        assert api.post("/api/v1/jobs/import", json={"run_dir": str(hand.run)}).json()["phase"] == "running"
        reconcile(app)
        hand.claim(slurm_job_id=7, pid=2**22 + 1)  # and its process has ended since, on a machine that was reset
        answers.queue = [replace(mine, state="FAILED", submitted=now() + timedelta(hours=1))]
        reconcile(app)
        with app.database.reading() as session:
            found = repository.get(session, hand.id)
        assert found is not None
        assert (found.phase, found.state) == ("unknown", "RUNNING")


def test_of_two_files_within_a_moment_the_second_is_not_overlooked(tmp_path: Path) -> None:
    job = Watched(
        "x", now(), 1, "n", str(tmp_path), by_hand=False, client="command", stale=False, attempts=1, observed=0
    )
    job.has_read((time.time_ns() - 1000, 0))
    assert job.folders is None
    old = (time.time_ns() - 60 * 10**9, 0)
    job.has_read(old)
    assert job.folders == old
