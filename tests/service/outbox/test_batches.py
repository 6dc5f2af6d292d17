"""The outbox in batches: what is stored when, what is asked of Slurm how often, and what a full disk costs."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.looking import pause
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmJob, SlurmUnavailableError, Submission
from lockstep_slurm.job.identity import slurm_name
from lockstep_slurm.job.rundir import Claim, as_json, begin_start, claim_file
from support.disks import fill

from .conftest import Json, Queue, Store, rows, turns_until, until


class TestBatches:
    def test_many_jobs_take_two_transactions_and_one_submit_each(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        ids = store(8)
        commits: list[object] = []
        event.listen(app.database.engine, "commit", commits.append)
        assert submit_due(app) == 8
        assert len(commits) == 2
        assert len(slurm.submits) == 8
        assert sorted(job.id for job in slurm.ours()) == sorted(int(row.slurm_job_id or 0) for row in rows(app, ids))
        assert {row.phase for row in rows(app, ids)} == {"waiting"}
        assert slurm.finds == []

    def test_those_of_one_request_are_stored_by_one_transaction_and_each_is_submitted_once(
        self, app: Application, slurm: Queue, api: TestClient, spec: Json, store: Store
    ) -> None:
        store(1)  # the cluster was asked for its nodes
        commits: list[object] = []
        woken: list[None] = []
        event.listen(app.database.engine, "commit", commits.append)
        app.wake_submit = lambda: woken.append(None)
        body = {"spec": spec, "changes": [{"training": {"seed": seed}} for seed in range(20)]}
        items = api.post("/api/v1/jobs/batch", json=body).raise_for_status().json()["items"]
        assert (len(commits), len(woken)) == (1, 1)
        turns_until(app, lambda: len(slurm.ours()) == 21)
        found = rows(app, [item["id"] for item in items])
        assert slurm.submits[1:] == [slurm_name(row.name, row.id) for row in found]
        assert [job.id for job in slurm.ours()][1:] == [row.slurm_job_id for row in found]
        assert {row.phase for row in found} == {"waiting"}

    def test_several_are_under_way_at_once_and_each_is_submitted_once(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        app.settings = app.settings.model_copy(update={"submit_parallel": 4})
        under_way, most = [0], [0]

        def meets(_submission: Submission) -> None:
            under_way[0] += 1
            until(lambda: under_way[0] >= 4 or most[0] >= 4)
            most[0] = max(most[0], under_way[0])
            under_way[0] -= 1

        slurm.meets = meets
        ids = store(12)
        assert submit_due(app) == 12
        assert most[0] >= 4
        assert len(set(slurm.submits)) == len(slurm.submits) == 12
        assert len({row.slurm_job_id for row in rows(app, ids)}) == 12

    def test_the_next_is_made_ready_while_one_is_under_way_and_taken_back_where_that_one_meets_silence(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        ids = store(16)
        first, second = ids[:8], ids[8:]

        def meets(_submission: Submission) -> None:
            until(lambda: all(row.submit_started_at is not None for row in rows(app, second)))
            raise SlurmUnavailableError("connection timed out")

        slurm.meets = meets
        assert submit_due(app) == 0
        assert len(slurm.submits) == 1
        lost, *others = rows(app, [*first, *second])
        assert lost.submit_started_at is not None
        assert {(row.submit_started_at, row.submit_tries) for row in others} == {(None, 0)}
        assert all("Slurm does not answer" in str(row.reason) for row in others)
        slurm.meets = lambda _submission: None
        turns_until(app, lambda: all(row.phase == "waiting" for row in rows(app, ids)))
        assert len({job.name for job in slurm.ours()}) == len(slurm.ours()) == 16

    def test_what_a_failure_of_ours_leaves_of_two_batches_is_looked_for_and_each_is_there_once(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        ids = store(16)

        def meets(submission: Submission) -> None:
            if len(slurm.submits) == 4:  # the second batch has its intents by then, or gets them while this one waits
                until(lambda: all(row.submit_started_at is not None for row in rows(app, ids[8:])))
                raise RuntimeError(submission.name)

        slurm.meets = meets
        with pytest.raises(RuntimeError):
            submit_due(app)
        assert len(slurm.submits) == 4
        assert all(row.submit_started_at is not None for row in rows(app, ids))
        slurm.meets = lambda _submission: None
        turns_until(app, lambda: all(row.phase == "waiting" and not row.held for row in rows(app, ids)))
        assert sorted(job.id for job in slurm.ours()) == sorted(int(row.slurm_job_id or 0) for row in rows(app, ids))
        assert len(slurm.ours()) == 16

    def test_no_more_are_submitted_in_a_second_than_allowed(self, app: Application, slurm: Queue, store: Store) -> None:
        app.outbox.rate = 4
        store(9)
        began = time.monotonic()
        turns_until(app, lambda: len(slurm.submits) == 9)
        assert time.monotonic() - began >= 2

    def test_one_whose_files_cannot_be_made_holds_up_no_other(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        ids = store(3)
        Path(rows(app, ids)[1].run_dir).write_text("a file is in the way")
        assert submit_due(app) == 2
        odd = rows(app, ids)[1]
        assert (odd.phase, odd.submit_started_at) == ("accepted", None)
        assert "cannot be submitted yet" in str(odd.reason)
        Path(odd.run_dir).unlink()
        turns_until(app, lambda: rows(app, ids)[1].phase == "waiting")

    def test_cancelled_while_its_intent_is_taken_back_it_is_never_submitted(
        self, app: Application, api: TestClient, slurm: Queue, store: Store
    ) -> None:
        ids = store(2)

        def meets(_submission: Submission) -> None:
            api.post(f"/api/v1/jobs/{ids[1]}/cancel").raise_for_status()
            raise SlurmUnavailableError("connection timed out")

        slurm.meets = meets
        submit_due(app)
        assert rows(app, ids)[1].phase == "accepted"
        slurm.meets = lambda _submission: None
        turns_until(app, lambda: rows(app, ids)[1].phase == "ended badly")
        assert slurm_name("digits", ids[1]) not in slurm.submits

    def test_a_service_that_is_stopped_leaves_nothing_lost_that_it_had_not_sent(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        ids = store(5)

        def meets(_submission: Submission) -> None:
            app.outbox.closing = True  # while the first is under way

        slurm.meets = meets
        assert submit_due(app) == 1
        assert len(slurm.submits) == 1
        assert [row.submit_started_at for row in rows(app, ids)] == [None] * 5
        app.outbox.closing = False
        assert submit_due(app) == 1


class TestSilence:
    def test_what_was_not_sent_yet_is_not_sent_and_not_lost(self, app: Application, slurm: Queue, store: Store) -> None:
        ids = store(6)
        slurm.silent = True
        submit_due(app)
        assert len(slurm.submits) == 1
        first, *others = rows(app, ids)
        assert first.submit_started_at is not None
        assert {row.submit_started_at for row in others} == {None}
        assert all("connection timed out" in str(row.reason) for row in [first, *others])

    def test_while_it_lasts_slurm_is_pinged_and_nothing_is_submitted(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        slurm.silent = True
        store(2)
        submit_due(app)
        later = store(1)
        turns_until(app, lambda: slurm.pings >= 3)
        assert len(slurm.submits) == 1
        assert "connection timed out" in str(rows(app, later)[0].reason)
        slurm.silent = False
        turns_until(app, lambda: [job.reason for job in slurm.ours()] == ["Resources"] * 3)

    def test_many_lost_answers_are_looked_for_by_one_question(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        ids = store(7)
        with app.database.writing() as session:
            for row in repository.lock_all(session, ids).values():
                row.submit_started_at = row.created_at  # as a service leaves them that was killed
        for row in rows(app, ids[:4]):  # four were taken before it was
            run = Path(row.run_dir)
            run.mkdir(parents=True)
            script = run / "job.sbatch"
            script.write_text(row.script)
            LocalClient.submit(slurm, Submission(script, slurm_name(row.name, row.id), run / "out", run))
        assert submit_due(app) == 4
        assert slurm.finds == [7]
        assert len(slurm.submits) == 3
        assert [row.held for row in rows(app, ids)] == [False] * 4 + [True] * 3
        turns_until(app, lambda: all(row.phase == "waiting" for row in rows(app, ids)))
        assert len(slurm.finds) <= 5
        assert len(slurm.ours()) == 7

    def test_the_timeline_tells_which_copies_were_cancelled(
        self, app: Application, api: TestClient, slurm: Queue, store: Store
    ) -> None:
        app.settings = app.settings.model_copy(update={"lookup_seconds": 60.0})
        (job,) = store(1)

        def meets(_submission: Submission) -> None:
            raise SlurmUnavailableError("connection timed out")

        slurm.meets = meets
        submit_due(app)
        slurm.meets = lambda _submission: None
        turns_until(app, lambda: rows(app, [job])[0].slurm_job_id is not None)
        (row,) = rows(app, [job])
        run = Path(row.run_dir)
        first = LocalClient.submit(slurm, Submission(run / "job.sbatch", slurm_name(row.name, job), run / "out", run))
        with app.database.writing() as session:
            repository.lock_all(session, [job])[job].submit_after = None
        turns_until(app, lambda: rows(app, [job])[0].phase == "waiting")
        told = [entry["text"] for entry in api.get(f"/api/v1/jobs/{job}/timeline").json()["items"]]
        assert f"A further copy of it, Slurm job {row.slurm_job_id}, was cancelled." in told
        assert f"Slurm took it as job {first}." in told

    def test_one_that_slurm_forgot_and_that_has_trained_is_not_submitted_again(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        (job,) = store(1)
        slurm.loses = 1
        submit_due(app)
        (row,) = rows(app, [job])
        (copy,) = slurm.ours()
        claim = Claim(attempt=1, fence=1, slurm_job_id=copy.id, restart_count=0, cluster="site", node="h", nodes=("h",),
                      ranks=1, host="h", pid=1, claimed=1.0)  # fmt: skip
        claim_file(begin_start(Path(row.run_dir)), 1).write_text(as_json(claim))
        slurm.find = lambda *_names: []  # type: ignore[method-assign]
        turns_until(app, lambda: rows(app, [job])[0].phase == "waiting")
        assert rows(app, [job])[0].slurm_job_id == copy.id
        assert len(slurm.submits) == 1

    def test_one_that_slurm_forgot_is_not_submitted_again_while_it_cannot_be_read_whether_it_has_trained(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        (job,) = store(1)
        slurm.loses = 1
        submit_due(app)
        (copy,) = slurm.ours()
        claim = Claim(attempt=1, fence=1, slurm_job_id=copy.id, restart_count=0, cluster="site", node="h", nodes=("h",),
                      ranks=1, host="h", pid=1, claimed=1.0)  # fmt: skip
        file = claim_file(begin_start(Path(rows(app, [job])[0].run_dir)), 1)
        file.write_text(as_json(claim)[:-9])
        slurm.find = lambda *_names: []  # type: ignore[method-assign]
        tries = rows(app, [job])[0].submit_tries
        turns_until(app, lambda: len(slurm.submits) > 1 or rows(app, [job])[0].submit_tries >= tries + 2)
        (row,) = rows(app, [job])
        assert (len(slurm.submits), row.phase, row.held) == (1, "accepted", False)
        assert f"cannot be read ({file} is not JSON" in str(row.reason)
        file.write_text(as_json(claim))
        turns_until(app, lambda: rows(app, [job])[0].phase == "waiting")
        assert (len(slurm.submits), rows(app, [job])[0].slurm_job_id) == (1, copy.id)

    def test_a_copy_whose_number_has_become_anothers_is_neither_cancelled_nor_released(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        spared, released = store(2)
        slurm.loses = 1
        submit_due(app)
        script = Path(rows(app, [spared])[0].run_dir) / "job.sbatch"
        others = [
            LocalClient.submit(slurm, Submission(script, "another", script.parent / "out", script.parent, hold=True))
            for _ in range(2)
        ]
        names = [slurm_name(row.name, row.id) for row in rows(app, [spared, released])]
        # What only the records know: a held copy of the first one, which an earlier process cancelled.
        old = SlurmJob(others[0], names[0], "CANCELLED")
        found = slurm.find
        slurm.find = lambda *asked: found(*asked) + [old] * (names[0] in asked)  # type: ignore[method-assign]
        with app.database.writing() as session:
            row = repository.lock_all(session, [released])[released]
            row.submit_started_at, row.held, row.slurm_job_id = row.created_at, True, others[1]
            row.lost_since, row.submit_after = row.created_at, None
        turns_until(app, lambda: {row.phase for row in rows(app, [spared, released])} == {"waiting"})
        assert {job.reason for job in slurm.queue() if job.id in others} == {"JobHeldUser"}
        assert not {row.slurm_job_id for row in rows(app, [spared, released])} & set(others)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestBetweenTwoLookUps:
    def test_is_twice_the_message_timeout_that_slurm_tells_unless_it_is_set(
        self, app: Application, slurm: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[float | SlurmUnavailableError | None] = [SlurmUnavailableError("connection timed out"), 7.0]

        def message_timeout() -> float | None:
            answer = told.pop(0)
            if isinstance(answer, SlurmUnavailableError):
                raise answer
            return answer

        monkeypatch.setattr(slurm, "message_timeout", message_timeout)
        assert pause(app) == timedelta(seconds=0.05)
        app.settings = app.settings.model_copy(update={"lookup_seconds": None})
        assert pause(app) == timedelta(seconds=20), "not known yet"
        assert [pause(app) for _ in range(2)] == [timedelta(seconds=14)] * 2, "known, and asked for once"

    def test_is_that_of_slurms_default_where_it_tells_none(self, app: Application) -> None:
        app.settings = app.settings.model_copy(update={"lookup_seconds": None})
        assert pause(app) == timedelta(seconds=20)


class TestTheDatabasesDiskIsFull:
    def test_a_submit_whose_answer_cannot_be_stored_is_found_again_by_its_name(
        self, disk: Path, lockstep_home: Path, spec: Json
    ) -> None:
        slurm = Queue(lockstep_home / "local")
        settings = Settings(
            home=lockstep_home, database_url=f"sqlite:///{disk / 'lockstep.db'}", dispatch=False, lookup_seconds=0.05,
            submit_retry_seconds=0.05, submit_parallel=1,
        )  # fmt: skip
        with TestClient(create_app(settings, slurm), base_url="http://127.0.0.1:8080") as client:
            app: Application = client.app.state.application  # type: ignore[attr-defined]
            headers = {"Authorization": f"Bearer {app.keys.token}"}
            job = client.post("/api/v1/jobs", json=spec, headers=headers).raise_for_status().json()["id"]
            slurm.meets = lambda _submission: fill(disk)
            with pytest.raises(OperationalError, match="full"):
                submit_due(app)
            assert rows(app, [job])[0].slurm_job_id is None
            (disk / "filler").unlink()
            slurm.meets = lambda _submission: None
            turns_until(app, lambda: rows(app, [job])[0].phase == "waiting")
            assert [found.id for found in slurm.ours()] == [rows(app, [job])[0].slurm_job_id]
            assert len(slurm.submits) == 1
            for found in LocalClient.queue(slurm):
                slurm.cancel(found.id)
