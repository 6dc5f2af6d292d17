"""Dispatch: submitting once whatever is lost, reconciling with evidence only; a real local queue does the work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import unfinished
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.submit import refresh_reports, submit_due
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import (
    SlurmJob,
    SlurmRefusedError,
    SlurmUnavailableError,
    Submission,
)
from lockstep_slurm.job.identity import slurm_name

Json = dict[str, Any]


class Unreliable(LocalClient):
    """A real local queue that can be away, refuse, or lose the answer of a submit that it did take."""

    away = False
    lose_answers = 0
    lose_calls = 0
    refuses: str | None = None
    records_away = False

    def submit(self, submission: Submission) -> int:
        if self.away or self.lose_calls > 0:
            self.lose_calls -= 1
            raise SlurmUnavailableError("connection timed out")
        if self.refuses:
            raise SlurmRefusedError(self.refuses)
        number = super().submit(submission)
        if self.lose_answers > 0:
            self.lose_answers -= 1
            raise SlurmUnavailableError("connection timed out")
        return number

    def queue(self) -> list[SlurmJob]:
        if self.away:
            raise SlurmUnavailableError("connection timed out")
        return super().queue()

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        if self.records_away:
            raise SlurmUnavailableError("the accounting database does not answer")
        return super().finished(ids)

    def find(self, name: str) -> list[SlurmJob]:
        if self.away:
            raise SlurmUnavailableError("connection timed out")
        return super().find(name)


@pytest.fixture
def settings(database_url: str, lockstep_home: Path) -> Settings:
    """The ranks' interpreter is none, so that jobs end at once; nothing waits between tries."""
    return Settings(
        home=lockstep_home, database_url=database_url, dispatch=False, python="/bin/false", exit_grace_seconds=0,
        submit_retry_seconds=0.001, submit_retry_limit_seconds=0.001,
    )  # fmt: skip


@pytest.fixture
def slurm(settings: Settings) -> Iterator[Unreliable]:
    """The scheduler."""
    client = Unreliable(settings.home / "local")
    yield client
    for job in client.queue() if not client.away else []:
        client.cancel(job.id)


@pytest.fixture
def browser(settings: Settings, slurm: Unreliable) -> Iterator[TestClient]:
    """A caller of an application on that scheduler."""
    with TestClient(create_app(settings, slurm), base_url="http://127.0.0.1") as client:
        yield client


def row(app: Application, job: Json) -> JobRow:
    with app.database.reading() as session:
        found = repository.get(session, job["id"])
    assert found is not None
    return found


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def submit_until_taken(app: Application) -> None:
    until(lambda: submit_due(app) > 0)


class TestSubmit:
    def test_makes_the_run_directory_and_hands_the_script_over(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        app.url = lambda: "http://127.0.0.1:1"
        assert submit_due(app) == 1
        found = row(app, job)
        run = Path(found.run_dir)
        assert (run / "job.sbatch").read_text() == found.script
        assert json.loads((run / "spec.json").read_text())["name"] == "digits"
        assert json.loads((run / "origin.json").read_text())["by_hand"] is False
        assert (run / "report.json").stat().st_mode & 0o777 == 0o600
        assert run.stat().st_mode & 0o777 == 0o700
        (known,) = slurm.find(slurm_name("digits", job["id"]))
        assert (found.slurm_job_id, found.phase) == (known.id, "waiting")
        assert submit_due(app) == 0

    def test_where_the_service_is_now_is_told_to_jobs_that_live(self, app: Application, job: Json) -> None:
        app.url = lambda: "http://127.0.0.1:1"
        submit_due(app)
        report = Path(row(app, job).run_dir) / "report.json"
        token = json.loads(report.read_text())["token"]
        app.url = lambda: "http://127.0.0.1:2"
        refresh_reports(app)
        assert json.loads(report.read_text()) == {"url": "http://127.0.0.1:2", "token": token}

    def test_a_refusal_ends_the_job_in_slurms_own_words(self, app: Application, slurm: Unreliable, job: Json) -> None:
        slurm.refuses = "Invalid account or account/partition combination specified"
        submit_due(app)
        found = row(app, job)
        assert found.phase == "ended badly"
        assert "Invalid account" in str(found.reason)
        unfinished(app, everything=False)
        assert row(app, job).final

    def test_while_slurm_is_away_it_is_accepted_and_says_why(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.away = True
        submit_due(app)
        found = row(app, job)
        assert (found.phase, found.slurm_job_id) == ("accepted", None)
        assert "connection timed out" in str(found.reason)
        slurm.away = False
        submit_until_taken(app)
        assert row(app, job).reason is None

    def test_a_lost_answer_is_found_again_and_not_submitted_twice(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.lose_answers = 1
        submit_due(app)
        assert row(app, job).slurm_job_id is None
        submit_until_taken(app)
        assert [known.id for known in slurm.find(slurm_name("digits", job["id"]))] == [row(app, job).slurm_job_id]

    def test_a_lost_call_is_made_again_held_and_released(self, app: Application, slurm: Unreliable, job: Json) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        until(lambda: submit_due(app) == 0 and row(app, job).slurm_job_id is not None)
        (held,) = slurm.find(slurm_name("digits", job["id"]))
        assert held.reason == "JobHeldUser"
        submit_until_taken(app)
        assert row(app, job).slurm_job_id == held.id
        until(lambda: slurm.find(slurm_name("digits", job["id"]))[0].reason != "JobHeldUser")

    def test_the_held_copy_goes_when_the_first_one_turns_up(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        until(lambda: submit_due(app) == 0 and row(app, job).slurm_job_id is not None)
        found = row(app, job)
        run, name = Path(found.run_dir), slurm_name("digits", job["id"])
        late = slurm.submit(Submission(run / "job.sbatch", name, run / "logs" / "job-%j.log", run, (str(run),)))
        submit_until_taken(app)
        assert row(app, job).slurm_job_id == late
        held = next(known for known in slurm.find(name) if known.id == found.slurm_job_id)
        assert held.state == "CANCELLED"

    def test_a_service_that_was_killed_in_the_middle_finds_what_it_submitted(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        submit_due(app)
        first = row(app, job).slurm_job_id
        with app.database.writing() as session:
            kept = repository.lock(session, job["id"])
            assert kept is not None
            kept.dispatched_at, kept.slurm_job_id, kept.phase, kept.submit_started_at = None, None, "accepted", now()
        submit_until_taken(app)
        assert row(app, job).slurm_job_id == first
        assert len(slurm.find(slurm_name("digits", job["id"]))) == 1

    @pytest.fixture
    def far(self, app: Application, slurm: Unreliable) -> timedelta:
        """A scheduler that is not of this machine: what it was sent may come late. Returns the time of a look-up."""
        slurm.kind = "command"
        app.settings = app.settings.model_copy(update={"lookup_seconds": 0.4})
        return timedelta(seconds=0.4)

    @staticmethod
    def late(app: Application, slurm: Unreliable, job: Json) -> int:
        """The first submit comes after all."""
        run, name = Path(row(app, job).run_dir), slurm_name("digits", job["id"])
        return slurm.submit(Submission(run / "job.sbatch", name, run / "logs" / "job-%j.log", run, (str(run),)))

    @pytest.mark.usefixtures("far")
    def test_a_held_copy_whose_own_answer_was_lost_waits_for_both_look_ups(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        name = slurm_name("digits", job["id"])
        slurm.lose_calls, slurm.lose_answers = 1, 1
        submit_due(app)
        until(lambda: submit_due(app) == 0 and row(app, job).slurm_job_id is not None)
        (held,) = slurm.find(name)
        assert (row(app, job).slurm_job_id, held.reason) == (held.id, "JobHeldUser")
        submit_due(app)
        assert slurm.find(name)[0].reason == "JobHeldUser"
        late = self.late(app, slurm, job)
        submit_until_taken(app)
        assert row(app, job).slurm_job_id == late
        assert {known.id: known.state for known in slurm.find(name)}[held.id] == "CANCELLED"

    def test_a_cancel_waits_for_a_copy_that_may_still_come(
        self, api: TestClient, app: Application, slurm: Unreliable, far: timedelta, job: Json
    ) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        until(lambda: submit_due(app) == 0 and row(app, job).lost_since is not None)
        assert row(app, job).phase == "accepted"
        late = self.late(app, slurm, job)
        submit_until_taken(app)
        pass_on_cancels(app)
        until(lambda: reconcile(app) is None)
        assert (row(app, job).phase, row(app, job).slurm_job_id) == ("ended badly", late)
        second = api.post("/api/v1/jobs", json=json.loads(row(app, job).spec)).json()
        slurm.lose_calls = 1
        submit_due(app)
        api.post(f"/api/v1/jobs/{second['id']}/cancel").raise_for_status()
        since = now()
        until(lambda: submit_due(app) == 0 and row(app, second).phase == "ended badly")
        assert now() - since >= 2 * far

    @pytest.mark.usefixtures("far")
    def test_a_refused_second_copy_does_not_end_a_job_whose_first_may_still_come(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        slurm.refuses = "Job violates accounting/QOS policy"
        until(lambda: submit_due(app) == 0 and row(app, job).lost_since is not None)
        assert row(app, job).phase == "accepted"
        slurm.refuses = None
        late = self.late(app, slurm, job)
        submit_until_taken(app)
        assert row(app, job).slurm_job_id == late

    @pytest.mark.usefixtures("far")
    def test_a_refused_second_copy_ends_the_job_when_no_first_came(
        self, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        slurm.refuses = "Job violates accounting/QOS policy"
        until(lambda: submit_due(app) == 0 and row(app, job).phase == "ended badly")
        assert "QOS policy" in str(row(app, job).reason)

    def test_cancelled_while_its_answer_is_lost(
        self, api: TestClient, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        assert api.post(f"/api/v1/jobs/{job['id']}/cancel").json()["phase"] == "accepted"
        until(lambda: submit_due(app) == 0 and row(app, job).phase == "ended badly")
        assert slurm.find(slurm_name("digits", job["id"])) == []


def vanish(app: Application, job: Json) -> None:
    """Slurm loses all memory of a job."""
    with app.database.writing() as session:
        kept = repository.lock(session, job["id"])
        assert kept is not None
        kept.slurm_job_id = 999_999


class TestReconcile:
    def test_a_job_whose_script_fails_ended_badly(self, api: TestClient, app: Application, job: Json) -> None:
        submit_due(app)
        until(lambda: reconcile(app) is None)
        unfinished(app, everything=False)
        found = api.get(f"/api/v1/jobs/{job['id']}").json()
        assert (found["state"], found["phase"]) == ("FAILED", "ended badly")
        assert found["ended_at"] is not None
        assert "cannot import lockstep_worker" in api.get(f"/api/v1/jobs/{job['id']}/logs").json()["text"]

    def test_silence_is_not_death(self, api: TestClient, app: Application, slurm: Unreliable, job: Json) -> None:
        submit_due(app)
        slurm.away = True
        reconcile(app)
        found = api.get(f"/api/v1/jobs/{job['id']}").json()
        assert found["stale_since"] is not None
        assert found["phase"] == "waiting"
        reconcile(app)
        assert api.get(f"/api/v1/jobs/{job['id']}").json()["stale_since"] == found["stale_since"]
        slurm.away = False
        reconcile(app)
        assert api.get(f"/api/v1/jobs/{job['id']}").json()["stale_since"] is None

    def test_only_what_could_not_be_asked_is_stale(
        self, api: TestClient, app: Application, slurm: Unreliable, spec: Json
    ) -> None:
        queued, gone = (api.post("/api/v1/jobs", json=spec).json() for _ in range(2))
        submit_due(app)
        vanish(app, gone)
        slurm.records_away = True
        reconcile(app)
        assert row(app, gone).stale_since is not None
        assert row(app, queued).stale_since is None
        assert row(app, queued).state is not None

    def test_what_slurm_has_no_word_of_can_be_put_away(self, api: TestClient, app: Application, job: Json) -> None:
        submit_due(app)
        vanish(app, job)
        reconcile(app)
        assert row(app, job).phase == "unknown"
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        pass_on_cancels(app)
        assert row(app, job).phase == "ended badly"
        unfinished(app, everything=False)
        until(lambda: not unfinished(app, everything=False))

    def test_a_claim_that_is_none_stops_no_other_job(
        self, api: TestClient, app: Application, slurm: Unreliable, spec: Json
    ) -> None:
        odd, good = (api.post("/api/v1/jobs", json=spec).json() for _ in range(2))
        submit_due(app)
        claim = {"attempt": 1, "fence": 1, "slurm_job_id": 10**30, "restart_count": 0, "cluster": "c", "node": "n",
                 "nodes": [], "ranks": 1, "host": "h", "pid": 1, "claimed": 1.0}  # fmt: skip
        file = Path(row(app, odd).run_dir) / "claims" / "000001.json"
        for change in ({}, {"claimed": "yesterday"}, {"nodes": 7}):
            file.write_text(json.dumps(claim | change))
            reconcile(app)
        slurm.cancel(int(row(app, good).slurm_job_id or 0))
        until(lambda: (reconcile(app), row(app, good).phase == "ended badly")[1])

    def test_cancel_is_passed_on(self, api: TestClient, app: Application, slurm: Unreliable, spec: Json) -> None:
        blocker, job = (api.post("/api/v1/jobs", json=spec).json() for _ in range(2))
        submit_due(app)
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        pass_on_cancels(app)
        until(lambda: reconcile(app) is None)
        found = row(app, job)
        assert found.phase == "ended badly"
        assert row(app, blocker).phase == "ended badly"
        if found.state == "CANCELLED":  # the first job may have been so quick that this one ran
            assert found.reason == "It was cancelled on request"
