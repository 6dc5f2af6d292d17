"""Holding, releasing and requeueing: before Slurm has a job, in its queue, running, and while it is away."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.dispatch.wanted import pass_on
from lockstep_service.jobs import repository
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob, SlurmUnavailableError, Submission
from lockstep_slurm.job.identity import new_job_id

from .conftest import URL, Json, Slurm, change, get, one_behind_another, post, until


def submitted_in_vain(app: Application, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn whose submit never reaches Slurm, of which nobody can know that."""

    def lost(_submission: Submission) -> int:
        raise SlurmUnavailableError("connection timed out")

    with monkeypatch.context() as patch:
        patch.setattr(slurm, "submit", lost)
        submit_due(app)


@pytest.mark.parametrize("verb", ["hold", "release", "requeue"])
class TestAnyControl:
    def test_anonymous(self, browser: TestClient, job: Json, verb: str) -> None:
        assert browser.post(f"{URL}/{job['id']}/{verb}").status_code == 401

    def test_none(self, api: TestClient, verb: str) -> None:
        assert api.post(f"{URL}/{new_job_id()}/{verb}").status_code == 404

    @pytest.mark.parametrize(
        ("columns", "says"),
        [
            ({"phase": "ended well"}, "rerun it"),
            ({"phase": "ended badly"}, "rerun it"),
            ({"phase": "unknown", "reason": "Slurm has no word of it"}, "Slurm has no word of it"),
            ({"phase": "running", "by_hand": True, "slurm_job_id": 7}, " 7"),
            ({"phase": "running", "cancel_requested_at": now()}, "being cancelled"),
        ],
    )
    def test_what_cannot_be_is_a_conflict_with_the_way_out(
        self, api: TestClient, app: Application, job: Json, verb: str, columns: Json, says: str
    ) -> None:
        change(app, job, **columns)
        answer = api.post(f"{URL}/{job['id']}/{verb}")
        assert answer.status_code == 409
        assert says in answer.json()["detail"]


class TestHoldJob:
    def test_before_dispatch_it_is_kept_from_slurm_until_it_is_released(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json
    ) -> None:
        answer = api.post(f"{URL}/{job['id']}/hold")
        assert answer.status_code == 202
        held = answer.json()
        assert (held["phase"], held["held"], held["wanted"]) == ("accepted", True, None)
        assert "release it" in held["reason"]
        assert post(api, f"/{job['id']}/hold")["held"]
        assert submit_due(app) == 0
        assert slurm.queue() == []
        free = post(api, f"/{job['id']}/release")
        assert (free["held"], free["reason"]) == (False, None)
        assert submit_due(app) == 1

    def test_a_held_one_that_comes_after_another_still_waits_for_it_when_released(
        self, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        second = post(api, "", json=spec, params={"after": job["id"]})
        post(api, f"/{second['id']}/hold")
        assert post(api, f"/{second['id']}/release")["reason"] == second["reason"]
        assert submit_due(app) == 1

    def test_in_slurms_queue_it_is_held_there_and_released_there(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json
    ) -> None:
        _, second = one_behind_another(api, app, spec)
        waits = get(api, second)
        asked = post(api, f"/{second['id']}/hold")
        assert (asked["wanted"], asked["held"]) == ("hold", True)
        assert pass_on(app) == 1
        assert [job.reason for job in slurm.queue() if job.id == waits["slurm_job_id"]] == ["JobHeldUser"]
        assert (get(api, second)["wanted"], get(api, second)["held"]) == (None, True)
        reconcile(app)
        assert get(api, second)["held"]
        assert pass_on(app) == 0
        asked = post(api, f"/{second['id']}/release")
        assert (asked["wanted"], asked["held"]) == ("release", False)
        assert pass_on(app) == 1
        assert [job.reason for job in slurm.queue() if job.id == waits["slurm_job_id"]] == ["Resources"]
        reconcile(app)
        assert not get(api, second)["held"]
        happened = api.get(f"{URL}/{second['id']}/timeline").json()["items"]
        assert [entry["text"] for entry in happened if entry["kind"] in {"dispatched", "asked"}] == [
            f"This machine's own queue took it as job {waits['slurm_job_id']}.",
            "Its owner holds it back.",
            "This machine's own queue was asked to hold it.",
            "Its owner holds it back no longer.",
            "This machine's own queue was asked to release it.",
        ]

    def test_what_slurm_holds_or_somebody_released_there_is_shown_as_it_is(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json
    ) -> None:
        _, job = one_behind_another(api, app, spec)
        number = get(api, job)["slurm_job_id"]
        slurm.hold(number)
        reconcile(app)
        assert get(api, job)["held"]
        post(api, f"/{job['id']}/hold")
        pass_on(app)
        slurm.release(number)
        reconcile(app)
        assert not get(api, job)["held"]

    def test_a_hold_waits_while_slurm_is_away(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json
    ) -> None:
        first, second = one_behind_another(api, app, spec)
        slurm.away = True
        post(api, f"/{second['id']}/hold")
        assert pass_on(app) == 0
        assert get(api, second)["wanted"] == "hold"
        slurm.away = False
        assert pass_on(app) == 1
        post(api, f"/{first['id']}/cancel")
        pass_on_cancels(app)

        def first_is_over() -> bool:
            reconcile(app)
            return bool(get(api, first)["phase"] == "ended badly")

        until(first_is_over)
        assert get(api, second)["phase"] == "waiting"

    def test_one_that_started_first_runs_on_and_says_so(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json
    ) -> None:
        submit_due(app)
        # As far as the service knows it still waits; it has the only slot.
        post(api, f"/{job['id']}/hold")
        until(lambda: [found.state for found in slurm.queue()] == ["RUNNING"])
        assert pass_on(app) == 1
        found = get(api, job)
        assert (found["held"], found["wanted"]) == (False, None)
        assert "Slurm did not hold it" in found["reason"]
        happened = [entry["text"] for entry in api.get(f"{URL}/{job['id']}/timeline").json()["items"]]
        assert happened[-2:] == ["Its owner holds it back.", found["reason"].rstrip(".") + "."]

    def test_a_running_job_cannot_be_held_or_released(self, api: TestClient, app: Application, job: Json) -> None:
        submit_due(app)
        reconcile(app)
        assert get(api, job)["phase"] == "running"
        assert "Requeue it or cancel it" in api.post(f"{URL}/{job['id']}/hold").json()["detail"]
        assert api.post(f"{URL}/{job['id']}/release").status_code == 409

    def test_what_is_not_held_cannot_be_released(self, api: TestClient, job: Json) -> None:
        assert "not held" in api.post(f"{URL}/{job['id']}/release").json()["detail"]

    def test_what_slurm_does_not_hold_cannot_be_released(self, api: TestClient, app: Application, spec: Json) -> None:
        _, job = one_behind_another(api, app, spec)
        assert "not held" in api.post(f"{URL}/{job['id']}/release").json()["detail"]

    def test_while_a_submits_answer_is_lost_the_job_is_found_and_then_held(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json
    ) -> None:
        post(api, "", json=spec)
        submit_due(app)
        lost = post(api, "", json=spec)
        slurm.loses = "submit"
        assert submit_due(app) == 0
        held = post(api, f"/{lost['id']}/hold")
        assert (held["wanted"], held["held"]) == ("hold", True)
        until(lambda: submit_due(app) == 1)
        assert pass_on(app) == 1
        assert [job.reason for job in slurm.queue()][-1] == "JobHeldUser"

    def test_a_second_copy_that_its_owner_wants_held_stays_held(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submitted_in_vain(app, slurm, monkeypatch)
        post(api, f"/{job['id']}/hold")
        until(lambda: submit_due(app) == 1)
        assert [found.reason for found in slurm.queue()] == ["JobHeldUser"]
        assert get(api, job)["held"]
        post(api, f"/{job['id']}/release")
        pass_on(app)
        until(lambda: [found.state for found in slurm.queue()] != ["PENDING"])

    def test_a_second_copy_that_is_released_while_it_is_looked_for_does_not_stay_held(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submitted_in_vain(app, slurm, monkeypatch)
        post(api, f"/{job['id']}/hold")
        look = slurm.find

        def find(*names: str) -> list[SlurmJob]:
            with app.database.reading() as session:
                row = repository.get(session, job["id"])
            if row is not None and row.lost_since is not None and row.user_hold:  # the look that makes the copy the job
                post(api, f"/{job['id']}/release")
            return look(*names)

        monkeypatch.setattr(slurm, "find", find)
        until(lambda: submit_due(app) == 1)
        assert [found.reason for found in slurm.queue()] == ["JobHeldUser"]
        assert (get(api, job)["held"], get(api, job)["wanted"]) == (False, "release")
        assert pass_on(app) == 1
        until(lambda: [found.state for found in slurm.queue()] != ["PENDING"])


class TestRequeueJob:
    def running(self, api: TestClient, app: Application, job: Json) -> Json:
        submit_due(app)
        reconcile(app)
        found = get(api, job)
        assert found["phase"] == "running"
        return found

    def test_a_running_job_goes_back_into_the_queue(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json
    ) -> None:
        found = self.running(api, app, job)
        answer = api.post(f"{URL}/{job['id']}/requeue")
        assert (answer.status_code, answer.json()["wanted"]) == (202, "requeue")
        assert pass_on(app) == 1
        until(lambda: [(one.id, one.restarts) for one in slurm.queue()] == [(found["slurm_job_id"], 1)])
        assert get(api, job)["wanted"] is None
        happened = api.get(f"{URL}/{job['id']}/timeline").json()["items"]
        assert [entry["text"] for entry in happened if entry["kind"] == "asked"] == [
            "Its owner asked for it to be put back into the queue.",
            "This machine's own queue was asked to requeue it.",
        ]

    def test_one_that_has_not_started_is_a_conflict(self, api: TestClient, job: Json) -> None:
        assert "has not started" in api.post(f"{URL}/{job['id']}/requeue").json()["detail"]

    def test_one_whose_answer_was_lost_is_not_asked_for_twice(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json
    ) -> None:
        self.running(api, app, job)
        post(api, f"/{job['id']}/requeue")
        slurm.loses = "requeue"
        pass_on(app)
        found = get(api, job)
        assert found["wanted"] is None
        assert "may have done so or not" in found["reason"]
        assert pass_on(app) == 0
        assert [one.restarts for one in slurm.queue()] == [1]

    def test_while_slurm_is_away_it_waits(self, api: TestClient, app: Application, slurm: Slurm, job: Json) -> None:
        self.running(api, app, job)
        slurm.away = True
        reconcile(app)
        post(api, f"/{job['id']}/requeue")
        assert pass_on(app) == 0
        assert get(api, job)["wanted"] == "requeue"
        slurm.away = False
        reconcile(app)
        assert pass_on(app) == 1
        assert [one.restarts for one in slurm.queue()] == [1]

    def test_one_that_is_cancelled_meanwhile_is_only_cancelled(
        self, api: TestClient, app: Application, slurm: Slurm, job: Json
    ) -> None:
        self.running(api, app, job)
        post(api, f"/{job['id']}/requeue")
        post(api, f"/{job['id']}/cancel")
        assert pass_on(app) == 0
        assert get(api, job)["wanted"] is None
        assert [one.restarts for one in slurm.queue()] == [0]
