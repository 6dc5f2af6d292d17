"""``POST /jobs/batch``: many jobs by one request, all or none, under one key."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_slurm.job import library
from lockstep_slurm.job.sweep import MOST_JOBS

Json = dict[str, Any]
URL = "/api/v1/jobs"
BATCH = f"{URL}/batch"
KEY = {"Idempotency-Key": "k1"}


@pytest.fixture
def sweep(spec: Json) -> Json:
    """Three trainings that differ in their seed."""
    changes = [{"name": f"digits-{seed}", "training": {"seed": seed}} for seed in (7, 8, 9)]
    return {"spec": spec, "changes": changes}


def stored(api: TestClient) -> list[Json]:
    """All jobs that there are, oldest first."""
    return list(reversed(api.get(URL, params={"limit": 200}).raise_for_status().json()["items"]))


def remove(app: Application, job_id: str) -> None:
    """The job ends, and is removed as an old one."""
    with app.database.writing() as session:
        row = repository.lock(session, job_id)
        assert row is not None
        row.phase, row.final = "ended well", True
    with app.database.writing() as session:
        assert repository.remove(session, job_id)


class TestSubmitBatch:
    def test_anonymous(self, browser: TestClient, sweep: Json) -> None:
        assert browser.post(BATCH, json=sweep).status_code == 401

    def test_all_are_stored_in_order_each_as_a_request_of_its_own_would_have(
        self, api: TestClient, sweep: Json
    ) -> None:
        answer = api.post(BATCH, json=sweep)
        assert answer.status_code == 201
        items = answer.json()["items"]
        assert [item["name"] for item in items] == ["digits-7", "digits-8", "digits-9"]
        assert [item["id"] for item in items] == [job["id"] for job in stored(api)]
        by_itself = sweep["spec"] | {"name": "digits-8", "training": sweep["spec"]["training"] | {"seed": 8}}
        one = api.post(URL, json=by_itself).raise_for_status().json()
        other = api.get(f"{URL}/{items[1]['id']}").json()
        own = {"id", "run_dir", "created_at"}
        assert {key: value for key, value in other.items() if key not in own} == {
            key: value for key, value in one.items() if key not in own
        }
        script, expected = (api.get(f"{URL}/{job['id']}/script").text for job in (other, one))
        assert script == expected
        timeline = api.get(f"{URL}/{other['id']}/timeline").json()["items"]
        assert [entry["text"] for entry in timeline] == ["It was stored."]

    def test_they_need_nothing_in_common_and_null_removes_a_key(self, api: TestClient, spec: Json) -> None:
        whole = {"changes": [spec, spec | {"name": "other"}]}
        assert len(api.post(BATCH, json=whole).raise_for_status().json()["items"]) == 2
        common = spec | {"resources": {"time": "10"}}
        answer = api.post(BATCH, json={"spec": common, "changes": [{}, {"resources": {"time": None}}]})
        jobs = [api.get(f"{URL}/{item['id']}").json() for item in answer.raise_for_status().json()["items"]]
        assert [job["spec"]["resources"]["time"] for job in jobs] == ["10", None]

    @pytest.mark.parametrize(
        ("wrong", "where", "says"),
        [
            ({"training": {"seed": "many"}}, "changes.2.training.seed", "many"),
            ({"resources": {"node": 2}}, "changes.2.resources.node", "partition"),
            ({"name": "two\nlines"}, "changes.2.name", r"two\nlines"),
            ({"training": None}, "changes.2.training", "is missing"),
            ({"resources": {"nodes": 99}}, "changes.2.resources.nodes", "1 node in all"),
            ({"resources": {"partition": "gpu"}}, "changes.2.resources.partition", "it has local"),
            ("seed=3", "changes.2", "seed=3"),
        ],
    )
    def test_what_is_wrong_with_one_is_named_and_nothing_is_stored(
        self, api: TestClient, sweep: Json, wrong: object, where: str, says: str
    ) -> None:
        answer = api.post(BATCH, json=sweep | {"changes": [*sweep["changes"][:2], wrong]}, headers=KEY)
        assert answer.status_code == 422
        (item,) = answer.json()["errors"]
        assert item["where"] == where
        assert says in item["message"]
        assert stored(api) == []
        # What was refused has not used up its key.
        assert api.post(BATCH, json=sweep, headers=KEY).status_code == 201

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ({"spec": {}}, "changes: is missing"),
            ({"changes": []}, "at least 1"),
            ({"changes": [{}] * (MOST_JOBS + 1)}, f"at most {MOST_JOBS}"),
            ({"changes": [{}], "jobs": []}, "jobs: is not a key that exists here; there are: changes, spec"),
            ([1], "is [1], but has to be a section of keys and values (in JSON an object)"),
        ],
    )
    def test_a_body_that_is_none(self, api: TestClient, body: object, says: str) -> None:
        answer = api.post(BATCH, json=body)
        assert answer.status_code == 422
        assert says in answer.json()["detail"]

    def test_what_is_wrong_with_all_is_told_of_a_few(self, api: TestClient, spec: Json) -> None:
        wrong = {"spec": spec | {"colour": "red"}, "changes": [{}] * MOST_JOBS}
        errors = api.post(BATCH, json=wrong).json()["errors"]
        assert [item["where"] for item in errors] == [f"changes.{place}.colour" for place in range(10)]

    def test_one_that_is_nested_too_deeply_is_refused(self, api: TestClient, spec: Json) -> None:
        deep = '{"a":' * 900 + "1" + "}" * 900
        body = f'{{"spec": {{"training": {deep}}}, "changes": [{{"training": {deep}}}]}}'
        answer = api.post(BATCH, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert stored(api) == []

    def test_a_body_or_its_specs_in_full_may_be_too_long(self, api: TestClient, app: Application, spec: Json) -> None:
        assert api.post(BATCH, content=b" " * (1 << 20) + b"{}").status_code == 413
        variables = {"environment": {"variables": {f"V{number}": "x" * 4000 for number in range(100)}}}
        answer = api.post(BATCH, json={"spec": spec | variables, "changes": [{}] * 40})
        assert answer.status_code == 413
        assert "of 40 jobs" in answer.json()["detail"]
        assert stored(api) == []
        assert app.settings.body_limit == 1 << 20

    def test_all_come_after_another_job(self, api: TestClient, app: Application, job: Json, sweep: Json) -> None:
        answer = api.post(BATCH, json=sweep, params={"after": job["id"]})
        first = api.get(f"{URL}/{answer.raise_for_status().json()['items'][0]['id']}").json()
        assert first["after"] == job["id"]
        assert "waits for job" in first["reason"]
        api.post(f"{URL}/{job['id']}/cancel").raise_for_status()
        refused = api.post(BATCH, json=sweep, params={"after": job["id"]})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["where"] == "after"
        assert len(stored(api)) == 4
        assert submit_due(app) == 0


class TestKeys:
    def test_the_same_key_and_body_is_the_same_answer_whatever_became_of_the_jobs(
        self, api: TestClient, app: Application, sweep: Json
    ) -> None:
        first = api.post(BATCH, json=sweep, headers=KEY).raise_for_status()
        api.post(f"{URL}/{first.json()['items'][0]['id']}/cancel").raise_for_status()
        again = api.post(BATCH, json=sweep, headers=KEY)
        assert (again.status_code, again.json()) == (201, first.json())
        assert len(stored(api)) == 3
        other = api.post(BATCH, json=sweep, headers={"Idempotency-Key": "k2"}).raise_for_status().json()
        assert not {item["id"] for item in other["items"]} & {item["id"] for item in first.json()["items"]}

    def test_it_is_known_as_long_as_any_of_its_jobs(self, api: TestClient, app: Application, sweep: Json) -> None:
        first, second, third = api.post(BATCH, json=sweep, headers=KEY).raise_for_status().json()["items"]
        for job, left in ((first, 2), (third, 1)):
            remove(app, job["id"])
            gone = api.post(BATCH, json=sweep, headers=KEY)
            assert gone.status_code == 409
            assert f"only {left} are kept" in gone.json()["detail"]
        remove(app, second["id"])
        assert api.post(BATCH, json=sweep, headers=KEY).status_code == 201

    @pytest.mark.parametrize("change", [{"changes": [{}]}, {"spec": {"name": "others"}}])
    def test_with_another_body_or_for_a_single_job_it_is_refused(
        self, api: TestClient, spec: Json, sweep: Json, change: Json
    ) -> None:
        api.post(BATCH, json=sweep, headers=KEY).raise_for_status()
        other = api.post(BATCH, json=sweep | change | {"spec": spec | change.get("spec", {})}, headers=KEY)
        if change == {"spec": {"name": "others"}}:  # each job has a name of its own: nothing is different
            assert other.status_code == 201
        else:
            assert other.status_code == 422
            assert other.json()["errors"][0]["where"] == "Idempotency-Key"
        single = api.post(URL, json=spec, headers=KEY)
        assert single.status_code == 422
        assert api.post(BATCH, json=sweep, headers=KEY, params={"after": "x"}).status_code == 422
        assert len(stored(api)) == 3

    def test_one_of_a_single_job_is_refused(self, api: TestClient, spec: Json) -> None:
        api.post(URL, json=spec, headers=KEY).raise_for_status()
        assert api.post(BATCH, json={"changes": [spec]}, headers=KEY).status_code == 422
        assert len(stored(api)) == 1

    def test_while_its_first_request_is_being_answered_it_is_in_progress(
        self, api: TestClient, sweep: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        provide = library.provide

        def meanwhile(runs: Path) -> Path:  # the first request is on its way to the database
            monkeypatch.setattr(library, "provide", provide)
            thread = threading.Thread(target=lambda: seen.append(api.post(BATCH, json=sweep, headers=KEY)))
            thread.start()
            thread.join()
            return provide(runs)

        monkeypatch.setattr(library, "provide", meanwhile)
        first = api.post(BATCH, json=sweep, headers=KEY)
        assert first.status_code == 201
        assert seen[0].status_code == 409
        assert seen[0].headers["retry-after"] == "1"
        assert api.post(BATCH, json=sweep, headers=KEY).json() == first.json()

    def test_one_that_comes_to_two_processes_at_once_is_answered_by_the_first(
        self, api: TestClient, app: Application, sweep: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found, add = [], app.intake.add

        def late(*rows: Any) -> None:  # the other process, which knows nothing of this one's keys, is a moment earlier
            monkeypatch.setattr(app.intake, "add", add)
            app.keys_in_progress._keys.clear()
            found.append(api.post(BATCH, json=sweep, headers=KEY).raise_for_status().json())
            add(*rows)

        monkeypatch.setattr(app.intake, "add", late)
        assert api.post(BATCH, json=sweep, headers=KEY).raise_for_status().json() == found[0]
        assert len(stored(api)) == 3
