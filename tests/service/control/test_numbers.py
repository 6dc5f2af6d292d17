"""Numbers that Slurm has given to other jobs: nothing is told them, whatever is wanted of the job that had one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.wanted import pass_on
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob, Submission

from .conftest import Json, Slurm, change, get, post, until

# What is asked of Slurm does not depend on the database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def another(slurm: Slurm, folder: Path, *, hold: bool = False) -> SlurmJob:
    """A job that is none of the service's."""
    script = folder / "another.sh"
    script.write_text("#!/bin/bash\n#SBATCH --ntasks=1\nsleep 300\n")
    number = slurm.submit(Submission(script, "another", folder / "another.log", folder, hold=hold))
    return as_it_is(slurm, number)


def as_it_is(slurm: Slurm, number: int) -> SlurmJob:
    (found,) = (job for job in slurm.queue() if job.id == number)
    return replace(found, started=None)  # an estimate moves


class TestOfAnotherJob:
    def test_a_cancel_puts_the_job_away_and_leaves_the_other_alone(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json, tmp_path: Path
    ) -> None:
        stranger = another(slurm, tmp_path, hold=True)
        change(app, job, slurm_job_id=stranger.id, dispatched_at=now(), phase="waiting")
        reconcile(app)
        found = get(api, job)
        assert (found["phase"], "cancel it to put it away" in found["reason"]) == ("unknown", True)
        post(api, f"/{job['id']}/cancel")
        pass_on_cancels(app)
        found = get(api, job)
        assert found["phase"] == "ended badly"
        assert "Slurm had no word of it" in found["reason"]
        assert f"Slurm's job {stranger.id} is called 'another'" in found["reason"]
        happened = [entry["text"] for entry in api.get(f"/api/v1/jobs/{job['id']}/timeline").json()["items"]]
        assert not [text for text in happened if "was asked to end it" in text]
        assert as_it_is(slurm, stranger.id) == stranger

    def test_a_cancel_of_one_that_is_not_unknown_yet_waits_for_what_becomes_of_it(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json, tmp_path: Path
    ) -> None:
        stranger = another(slurm, tmp_path, hold=True)
        change(app, job, slurm_job_id=stranger.id, dispatched_at=now(), phase="waiting")
        post(api, f"/{job['id']}/cancel")
        pass_on_cancels(app)
        assert get(api, job)["phase"] == "waiting"
        reconcile(app)
        pass_on_cancels(app)
        assert get(api, job)["phase"] == "ended badly"
        assert as_it_is(slurm, stranger.id) == stranger

    @pytest.mark.parametrize("verb", ["hold", "release", "requeue"])
    def test_no_wish_is_passed_on_to_it(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json, tmp_path: Path, verb: str
    ) -> None:
        stranger = another(slurm, tmp_path, hold=verb == "release")
        if verb == "requeue":
            until(lambda: as_it_is(slurm, stranger.id).state == "RUNNING")
            stranger = as_it_is(slurm, stranger.id)
        phase = "running" if verb == "requeue" else "waiting"
        change(app, job, slurm_job_id=stranger.id, dispatched_at=now(), phase=phase, user_hold=verb == "release")
        post(api, f"/{job['id']}/{verb}")
        assert pass_on(app) == 1
        assert f"({verb}): Slurm does not know the job" in get(api, job)["reason"]
        assert as_it_is(slurm, stranger.id) == stranger
