"""Running a job again, exactly or changed, and one job after another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.dispatch.wanted import end_in_vain
from lockstep_service.jobs import repository
from lockstep_service.jobs.control import merged
from lockstep_service.wire import now
from lockstep_slurm.job.identity import new_job_id

from .conftest import URL, Json, Slurm, change, get, post


class TestRerunJob:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.post(f"{URL}/{job['id']}/rerun").status_code == 401

    def test_none(self, api: TestClient) -> None:
        assert api.post(f"{URL}/{new_job_id()}/rerun").status_code == 404

    @pytest.mark.parametrize("body", [None, {}])
    def test_exactly_is_a_new_job_with_the_very_same_script(
        self, api: TestClient, job: Json, body: Json | None
    ) -> None:
        answer = api.post(f"{URL}/{job['id']}/rerun", json=body)
        assert answer.status_code == 201
        again = answer.json()
        assert answer.headers["location"] == f"{URL}/{again['id']}"
        assert again["id"] != job["id"]
        assert (again["rerun_of"], again["phase"], again["spec"]) == (job["id"], "accepted", job["spec"])
        assert api.get(f"{URL}/{again['id']}/script").text == api.get(f"{URL}/{job['id']}/script").text

    def test_exactly_keeps_what_the_site_filled_in_then(self, api: TestClient, app: Application, spec: Json) -> None:
        app.site = app.site.model_validate({"defaults": {"time": "30"}})
        job = post(api, "", json=spec)
        app.site = app.site.model_validate({"defaults": {"time": "60"}})
        exactly = post(api, f"/{job['id']}/rerun")
        changed = post(api, f"/{job['id']}/rerun", json={"training": {"epochs": 3}})
        assert (exactly["spec"]["resources"]["time"], exactly["filled"]) == ("30", ["resources.time"])
        assert (changed["spec"]["resources"]["time"], changed["filled"]) == ("60", ["resources.time"])

    def test_changes_are_put_over_the_spec_and_null_takes_a_key_away(self, api: TestClient, spec: Json) -> None:
        job = post(api, "", json=spec | {"resources": {"time": "5", "mem": "1G"}})
        changes = {"name": "wider", "training": {"batch_size": 64}, "resources": {"time": None}}
        again = post(api, f"/{job['id']}/rerun", json=changes)
        assert (again["name"], again["rerun_of"]) == ("wider", job["id"])
        expected = json.loads(json.dumps(job["spec"]))
        expected["name"], expected["training"]["batch_size"], expected["resources"]["time"] = "wider", 64, None
        assert again["spec"] == expected
        assert get(api, job)["spec"] == job["spec"]

    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"training": {"batch_size": 0}}, "training.batch_size"),
            ({"training": None}, "training"),
            ({"trainig": {}}, "trainig"),
            ({"resources": 4}, "resources"),
            ({"resources": {"partition": "nowhere"}}, "resources.partition"),
        ],
    )
    def test_changes_that_make_no_spec_are_named_and_store_nothing(
        self, api: TestClient, job: Json, changes: Json, where: str
    ) -> None:
        answer = api.post(f"{URL}/{job['id']}/rerun", json=changes)
        assert answer.status_code == 422
        assert [item["where"] for item in answer.json()["errors"]] == [where]
        assert len(api.get(URL).json()["items"]) == 1

    def test_a_body_that_is_no_object(self, api: TestClient, job: Json) -> None:
        assert api.post(f"{URL}/{job['id']}/rerun", json=[1]).status_code == 422

    def test_the_same_key_is_the_same_rerun_and_another_job_is_not(
        self, api: TestClient, spec: Json, job: Json
    ) -> None:
        key = {"Idempotency-Key": "again"}
        first, second = (post(api, f"/{job['id']}/rerun", headers=key) for _ in range(2))
        assert first["id"] == second["id"]
        other = post(api, "", json=spec)
        assert api.post(f"{URL}/{other['id']}/rerun", headers=key).status_code == 422
        assert api.post(URL, json=spec, headers=key).status_code == 422

    @pytest.mark.parametrize(
        ("document", "changes", "result"),
        [
            ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
            ({"a": 1}, {"a": {"b": None, "c": 3}}, {"a": {"c": 3}}),
            ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
            ({}, {"a": None}, {}),
        ],
    )
    def test_a_merge_patch_is_rfc_7396s(self, document: Json, changes: Json, result: Json) -> None:
        before = json.dumps(document)
        assert merged(document, changes) == result
        assert json.dumps(document) == before


class TestRerunFromACheckpoint:
    @pytest.fixture
    def saved(self, api: TestClient, job: Json) -> Json:
        """The job, with two checkpoints in its run directory; only their names are looked at."""
        folder = Path(get(api, job)["run_dir"]) / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("step-000000050-attempt-1.lockstep", "step-000000100-attempt-2.lockstep", ".x.partial"):
            (folder / name).touch()
        return job

    @pytest.mark.parametrize(("which", "step"), [("last", "last"), ("best", "best"), ("50", 50)])
    def test_the_new_spec_names_it(self, api: TestClient, saved: Json, which: str, step: object) -> None:
        again = post(api, f"/{saved['id']}/rerun", params={"from": which}, json={"checkpoint": {"keep": 5}})
        found = again["spec"]["checkpoint"]
        assert (found["resume_from"], found["resume_step"]) == (get(api, saved)["run_dir"], step)
        assert (found["keep"], again["rerun_of"]) == (5, saved["id"])
        assert '"resume_from"' in api.get(f"{URL}/{again['id']}/script").text

    @pytest.mark.parametrize(
        ("which", "words"),
        [
            ("70", "no checkpoint of step 70; it has 50, 100"),
            ("newest", "last, best, or a step"),
            ("-1", "last, best, or a step"),
        ],
    )
    def test_one_that_there_is_not(self, api: TestClient, saved: Json, which: str, words: str) -> None:
        answer = api.post(f"{URL}/{saved['id']}/rerun", params={"from": which})
        assert answer.status_code == 422
        assert words in answer.text
        assert len(api.get(URL).json()["items"]) == 1

    def test_a_job_that_has_saved_nothing(self, api: TestClient, job: Json) -> None:
        answer = api.post(f"{URL}/{job['id']}/rerun", params={"from": "last"})
        assert answer.status_code == 422
        assert "the job has no checkpoint" in answer.json()["errors"][0]["message"]


class TestAfter:
    def test_a_job_waits_until_the_one_before_has_ended_well(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json, job: Json
    ) -> None:
        second = post(api, "", json=spec, params={"after": job["id"]})
        assert (second["after"], second["after_any"], second["phase"]) == (job["id"], False, "accepted")
        assert second["reason"] == f"It waits for job {job['id']} (digits) to end well"
        assert submit_due(app) == 1
        assert end_in_vain(app) == 0
        assert submit_due(app) == 0
        assert len(slurm.queue()) == 1
        change(app, job, phase="ended well", ended_at=now())
        assert submit_due(app) == 1
        assert get(api, second)["phase"] == "waiting"

    def test_a_bad_end_ends_all_that_come_after_it_in_its_own_words(
        self, api: TestClient, app: Application, slurm: Slurm, spec: Json, job: Json
    ) -> None:
        second = post(api, "", json=spec, params={"after": job["id"]})
        third = post(api, "", json=spec, params={"after": second["id"]})
        anyhow = post(api, "", json=spec, params={"after": job["id"], "after_any": True})
        change(app, job, phase="ended badly", reason="A node failed under it", ended_at=now())
        assert end_in_vain(app) == 2
        found = get(api, second)
        assert found["phase"] == "ended badly"
        assert found["reason"] == (
            f"It was to start after job {job['id']} (digits) ended well, and that one ended badly: "
            "A node failed under it"
        )
        assert second["id"] in get(api, third)["reason"]
        assert submit_due(app) == 1
        assert [get(api, one)["phase"] for one in (second, third, anyhow)] == ["ended badly", "ended badly", "waiting"]
        assert end_in_vain(app) == 0

    def test_a_cancelled_job_is_one_that_ended_badly(
        self, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        second = post(api, "", json=spec, params={"after": job["id"]})
        post(api, f"/{job['id']}/cancel")
        end_in_vain(app)
        assert "cancelled before it was submitted" in get(api, second)["reason"]

    def test_any_end_waits_for_an_end_all_the_same(
        self, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        second = post(api, "", json=spec, params={"after": job["id"], "after_any": True})
        assert second["reason"] == f"It waits for job {job['id']} (digits) to end"
        assert submit_due(app) == 1
        assert get(api, second)["phase"] == "accepted"

    def test_one_that_waits_can_be_cancelled(self, api: TestClient, app: Application, spec: Json, job: Json) -> None:
        second = post(api, "", json=spec, params={"after": job["id"]})
        assert post(api, f"/{second['id']}/cancel")["phase"] == "ended badly"
        change(app, job, phase="ended well")
        assert submit_due(app) == 0

    def test_after_a_job_that_has_ended_well_nothing_waits(
        self, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        change(app, job, phase="ended well", final=True)
        assert post(api, "", json=spec, params={"after": job["id"]})["reason"] is None
        assert submit_due(app) == 1

    def test_after_one_that_is_gone_or_has_ended_badly_is_refused(
        self, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        unknown = api.post(URL, json=spec, params={"after": new_job_id()})
        assert (unknown.status_code, unknown.json()["errors"][0]["where"]) == (422, "after")
        change(app, job, phase="ended badly", final=True)
        bad = api.post(URL, json=spec, params={"after": job["id"]})
        assert (bad.status_code, bad.json()["errors"][0]["where"]) == (422, "after")
        assert "after_any=true" in bad.json()["detail"]
        assert api.post(URL, json=spec, params={"after": job["id"], "after_any": "true"}).status_code == 201

    def test_a_job_that_was_forgotten_meanwhile_ends_what_comes_after_it_only_if_it_had_to_end_well(
        self, api: TestClient, app: Application, spec: Json, job: Json
    ) -> None:
        second = post(api, "", json=spec, params={"after": job["id"]})
        anyhow = post(api, "", json=spec, params={"after": job["id"], "after_any": True})
        with app.database.writing() as session:
            session.delete(repository.lock(session, job["id"]))
        assert end_in_vain(app) == 1
        assert "not kept any more" in get(api, second)["reason"]
        assert submit_due(app) == 1
        assert get(api, anyhow)["phase"] == "waiting"

    def test_a_rerun_may_come_after_another(self, api: TestClient, app: Application, job: Json) -> None:
        again = post(api, f"/{job['id']}/rerun", params={"after": job["id"]})
        assert (again["rerun_of"], again["after"]) == (job["id"], job["id"])
        assert submit_due(app) == 1

    def test_the_same_key_after_another_job_is_another_submission(self, api: TestClient, spec: Json, job: Json) -> None:
        key = {"Idempotency-Key": "k"}
        first, second = (post(api, "", json=spec, headers=key, params={"after": job["id"]}) for _ in range(2))
        assert first["id"] == second["id"]
        assert api.post(URL, json=spec, headers=key).status_code == 422
