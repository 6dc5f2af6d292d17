"""Submitting: once, whatever is lost; a real local queue does the work."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import unfinished
from lockstep_service.dispatch.preparing import prepare
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.submit import refresh_reports, submit_due
from lockstep_service.jobs import repository
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import Submission
from lockstep_slurm.job import library
from lockstep_slurm.job.identity import slurm_name
from lockstep_slurm.job.rundir import FOLDERS, LOGS, begin_start, claim_file

from .conftest import Json, Unreliable, row, submit_until_taken, until


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

    def test_a_job_that_was_stored_before_an_upgrade_finds_the_folders_that_its_own_library_does_not_make(
        self, app: Application, job: Json, api: TestClient, spec: Json
    ) -> None:
        of_today, before = row(app, job), row(app, api.post("/api/v1/jobs", json=spec).json())
        before.script = before.script.replace(library.name(), "lockstep-0.0.1-0123456789abcdef.zip")
        made = []
        for found in (of_today, before):
            submission, _ = prepare(found, None, hold=False)
            made.append({path.name for path in submission.directory.iterdir() if path.is_dir()})
        assert made == [{LOGS}, {LOGS, *FOLDERS}]
        (submission.directory / "exit").rmdir()  # the service was killed before it had made them all
        prepare(before, None, hold=False)
        assert (submission.directory / "exit").is_dir()

    def test_where_the_service_is_now_is_told_to_jobs_that_live(self, app: Application, job: Json) -> None:
        app.url = lambda: "http://127.0.0.1:1"
        submit_due(app)
        report = Path(row(app, job).run_dir) / "report.json"
        token = json.loads(report.read_text())["token"]
        app.url = lambda: "http://127.0.0.1:2"
        refresh_reports(app)
        assert json.loads(report.read_text()) == {"url": "http://127.0.0.1:2", "token": token}

    def test_a_report_that_is_none_keeps_no_other_job_from_being_told(
        self, app: Application, api: TestClient, spec: Json, job: Json
    ) -> None:
        app.url = lambda: "http://127.0.0.1:1"
        good = api.post("/api/v1/jobs", json=spec).json()
        submit_due(app)
        odd_report, report = (Path(row(app, one).run_dir) / "report.json" for one in (job, good))
        odd_report.write_text("[" * 60_000)
        app.url = lambda: "http://127.0.0.1:2"
        refresh_reports(app)
        assert json.loads(report.read_text())["url"] == "http://127.0.0.1:2"

    def test_a_refusal_ends_the_job_in_slurms_own_words(self, app: Application, slurm: Unreliable, job: Json) -> None:
        slurm.refuses = "Invalid account or account/partition combination specified"
        submit_due(app)
        found = row(app, job)
        assert found.phase == "ended badly"
        assert "Invalid account" in str(found.reason)
        unfinished(app, everything=False)
        assert row(app, job).final

    def test_a_job_goes_on_when_the_service_asks_the_same_slurm_another_way(
        self, app: Application, slurm: Unreliable, api: TestClient, spec: Json
    ) -> None:
        slurm.kind = "command"
        job = api.post("/api/v1/jobs", json=spec).raise_for_status().json()
        slurm.kind = "local"
        assert submit_due(app) == 0
        slurm.kind = "pyslurm"
        assert submit_due(app) == 1
        slurm.kind = "command"
        assert reconcile(app) is not None
        assert row(app, job).observed_at is not None

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

    @pytest.mark.parametrize("claim", ['{"nodes": 7}', "[" * 60_000])
    def test_a_claim_that_is_none_of_a_lost_job_keeps_no_other_from_being_submitted(
        self, app: Application, slurm: Unreliable, api: TestClient, spec: Json, job: Json, claim: str
    ) -> None:
        slurm.lose_answers = 1
        submit_due(app)
        claim_file(begin_start(Path(row(app, job).run_dir)), 1).write_text(claim)
        other = api.post("/api/v1/jobs", json=spec).json()
        until(lambda: (submit_due(app), row(app, other).slurm_job_id is not None)[1])
        # Of the lost one there is a single copy: whichever was started, that is the job.
        until(lambda: (submit_due(app), row(app, job).slurm_job_id is not None)[1])
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
        self, api: TestClient, app: Application, slurm: Unreliable, job: Json
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
        happened = [entry["text"] for entry in api.get(f"/api/v1/jobs/{job['id']}/timeline").json()["items"]]
        assert happened[-3:] == [
            "A submit's answer was lost; a second copy is held until it is certain that there is no first.",
            f"A further copy of it, Slurm job {held.id}, was cancelled.",
            f"This machine's own queue took it as job {late}.",
        ]

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
        slurm.refuses = "Invalid qos specification"
        until(lambda: submit_due(app) == 0 and row(app, job).phase == "ended badly")
        assert "Invalid qos" in str(row(app, job).reason)

    def test_cancelled_while_its_answer_is_lost(
        self, api: TestClient, app: Application, slurm: Unreliable, job: Json
    ) -> None:
        slurm.lose_calls = 1
        submit_due(app)
        assert api.post(f"/api/v1/jobs/{job['id']}/cancel").json()["phase"] == "accepted"
        until(lambda: submit_due(app) == 0 and row(app, job).phase == "ended badly")
        assert slurm.find(slurm_name("digits", job["id"])) == []
