"""``/jobs``: one class an endpoint."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.clusters import repository as clusters
from lockstep_service.dispatch import worklists
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.jobs.logs import newest_size
from lockstep_service.wire import now
from lockstep_slurm.job import library
from lockstep_slurm.job.identity import is_job_id, new_job_id

from .conftest import HandMadeRun

Json = dict[str, Any]
URL = "/api/v1/jobs"


class TestSubmitJob:
    def test_anonymous(self, browser: TestClient, spec: Json) -> None:
        assert browser.post(URL, json=spec).status_code == 401

    def test_a_job_is_stored_and_answered(self, api: TestClient, spec: Json) -> None:
        answer = api.post(URL, json=spec)
        assert answer.status_code == 201
        job = answer.json()
        assert is_job_id(job["id"])
        assert (job["phase"], job["state"], job["slurm_job_id"]) == ("accepted", None, None)
        assert job["spec"]["training"]["epochs"] == 2
        assert job["created_at"].endswith("Z")
        assert answer.headers["location"] == f"{URL}/{job['id']}"
        assert api.get(answer.headers["location"]).json() == job

    @pytest.mark.parametrize(
        ("change", "where", "says"),
        [
            ({"training": {"model": "resnet51", "data": "digits"}}, "training.model", "resnet51"),
            ({"resources": {"nodes": 0}}, "resources.nodes", "at least 1"),
            ({"name": "two\nlines"}, "name", r"two\nlines"),
            ({"environment": {"variables": {"A": "x\ny"}}}, "environment.variables.A", "control character"),
            ({"resources": {"node": 2}}, "resources.node", "partition"),
            ({"colour": "red"}, "colour", "training"),
            ({"path": "here"}, "path", "is not a key that exists here"),
            ({"training": None}, "training", ""),
            ({"placement": {"communication_cpus": -1}}, "placement.communication_cpus", "-1"),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_stored(
        self, api: TestClient, spec: Json, change: Json, where: str, says: str
    ) -> None:
        answer = api.post(URL, json=spec | change)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == 422
        found = {item["where"]: item["message"] for item in problem["errors"]}
        assert where in found
        assert says in found[where]
        assert api.get(URL).json()["items"] == []

    @pytest.mark.parametrize(
        ("body", "says"),
        [(b'{"name":', "not JSON"), (b'{"name": "\xff"}', "not UTF-8"), (b"", "missing"), (b"[1]", "")],
    )
    def test_a_body_that_cannot_be_read(self, api: TestClient, body: bytes, says: str) -> None:
        answer = api.post(URL, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert says in answer.json()["detail"]
        assert api.get(URL).json()["items"] == []

    def test_a_body_that_is_too_long(self, api: TestClient) -> None:
        assert api.post(URL, content=b" " * (1 << 20) + b"{}").status_code == 413

    def test_more_than_a_node_has(self, api: TestClient, spec: Json) -> None:
        answer = api.post(URL, json=spec | {"placement": {"ranks_per_node": 512, "cpus_per_rank": 8}})
        assert answer.status_code == 422
        (item,) = answer.json()["errors"]
        assert item["where"] == "placement.ranks_per_node"
        assert "4096 CPUs" in item["message"]
        assert "largest node" in item["message"]
        assert api.get(URL).json()["items"] == []

    def test_more_nodes_than_there_are_and_a_partition_that_is_not(self, api: TestClient, spec: Json) -> None:
        assert "1 node" in api.post(URL, json=spec | {"resources": {"nodes": 3}}).json()["detail"]
        assert "it has local" in api.post(URL, json=spec | {"resources": {"partition": "gpu"}}).json()["detail"]

    def test_the_same_key_and_body_is_the_same_job(self, api: TestClient, spec: Json) -> None:
        key = {"Idempotency-Key": "k1"}
        first, second = (api.post(URL, json=spec, headers=key) for _ in range(2))
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json() == second.json()
        assert len(api.get(URL).json()["items"]) == 1

    def test_a_key_is_answered_again_whatever_the_cluster_says_by_then(
        self, api: TestClient, app: Application, spec: Json
    ) -> None:
        key, wanted = {"Idempotency-Key": "k1"}, spec | {"resources": {"partition": "local"}}
        first = api.post(URL, json=wanted, headers=key).raise_for_status().json()
        with app.database.writing() as session:
            row = clusters.get(session, "default")
            assert row is not None
            row.answer = row.answer | {"partitions": [{"name": "other", "state": "UP"}]}
        app.answers.read_at = 0.0  # what another process stored is read a second later
        assert api.post(URL, json=wanted).status_code == 422
        assert api.post(URL, json=wanted, headers=key).json()["id"] == first["id"]

    def test_no_request_waits_for_slurm_however_old_its_last_answer_is(
        self, api: TestClient, app: Application, spec: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api.post(URL, json=spec).raise_for_status()
        with app.database.writing() as session:
            row = clusters.get(session, "default")
            assert row is not None
            assert row.observed_at is not None
            row.observed_at -= timedelta(hours=1)

        def nodes() -> NoReturn:
            pytest.fail("a request asked Slurm")

        monkeypatch.setattr(app.client, "nodes", nodes)
        assert api.post(URL, json=spec).status_code == 201
        assert api.post(URL, json=spec | {"resources": {"partition": "nowhere"}}).status_code == 422

    def test_the_same_key_with_another_body_is_refused(self, api: TestClient, spec: Json) -> None:
        key = {"Idempotency-Key": "k1"}
        api.post(URL, json=spec, headers=key)
        answer = api.post(URL, json=spec | {"name": "other"}, headers=key)
        assert answer.status_code == 422
        assert "k1" not in answer.json()["detail"] or "another spec" in answer.json()["detail"]
        assert len(api.get(URL).json()["items"]) == 1

    def test_a_key_whose_first_request_is_being_answered_is_in_progress(
        self, api: TestClient, app: Application, spec: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key, seen = {"Idempotency-Key": "k"}, []
        provide = library.provide

        def meanwhile(runs: Path) -> Path:  # the first request is on its way to the database
            monkeypatch.setattr(library, "provide", provide)
            seen.append(api.post(URL, json=spec, headers=key))
            seen.append(api.post(URL, json=spec | {"name": "other"}, headers={"Idempotency-Key": "another"}))
            return provide(runs)

        api.post(URL, json=spec).raise_for_status()
        monkeypatch.setattr(library, "provide", meanwhile)
        first = api.post(URL, json=spec, headers=key)
        assert first.status_code == 201
        assert [answer.status_code for answer in seen] == [409, 201]
        assert "k" in seen[0].json()["detail"]
        assert api.post(URL, json=spec, headers=key).json()["id"] == first.json()["id"]

    def test_the_same_key_at_the_same_time_is_one_job(self, api: TestClient, spec: Json) -> None:
        ids: list[str] = []

        def post() -> None:
            while (answer := api.post(URL, json=spec, headers={"Idempotency-Key": "k"})).status_code == 409:
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["type"] == "about:blank#in-progress"
            ids.append(answer.raise_for_status().json()["id"])

        threads = [threading.Thread(target=post) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 8
        assert len(set(ids)) == 1


class TestListJobs:
    def test_anonymous(self, browser: TestClient) -> None:
        assert browser.get(URL).status_code == 401

    def test_newest_first_page_by_page(self, api: TestClient, spec: Json) -> None:
        made = [api.post(URL, json=spec).json()["id"] for _ in range(5)]
        seen, cursor = [], None
        for _ in range(3):
            page = api.get(URL, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            assert all("spec" not in item for item in page["items"])
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert seen == made[::-1]
        assert cursor is None

    def test_an_unknown_cursor(self, api: TestClient) -> None:
        assert api.get(URL, params={"cursor": new_job_id()}).status_code == 422

    def test_etag(self, api: TestClient, spec: Json) -> None:
        tag = api.get(URL).headers["etag"]
        assert api.get(URL, headers={"If-None-Match": tag}).status_code == 304
        api.post(URL, json=spec)
        assert api.get(URL, headers={"If-None-Match": tag}).status_code == 200


class TestGetJob:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"{URL}/{job['id']}").status_code == 401

    def test_none(self, api: TestClient) -> None:
        answer = api.get(f"{URL}/{new_job_id()}")
        assert answer.status_code == 404
        assert answer.json()["title"] == "Not found"

    def test_etag(self, api: TestClient, job: Json) -> None:
        first = api.get(f"{URL}/{job['id']}")
        assert api.get(f"{URL}/{job['id']}", headers={"If-None-Match": first.headers["etag"]}).status_code == 304


class TestCancelJob:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.post(f"{URL}/{job['id']}/cancel").status_code == 401

    def test_none(self, api: TestClient) -> None:
        assert api.post(f"{URL}/{new_job_id()}/cancel").status_code == 404

    def test_before_it_was_submitted_it_ends_at_once_and_is_never_submitted(
        self, api: TestClient, app: Application, job: Json
    ) -> None:
        answer = api.post(f"{URL}/{job['id']}/cancel")
        assert answer.status_code == 202
        assert (answer.json()["phase"], answer.json()["state"]) == ("ended badly", None)
        assert "before it was submitted" in answer.json()["reason"]
        assert submit_due(app) == 0
        assert app.client.queue() == []

    def test_asked_for_again_it_is_passed_on_again(self, api: TestClient, app: Application, job: Json) -> None:
        with app.database.writing() as session:
            row = repository.lock(session, job["id"])
            assert row is not None
            row.dispatched_at = row.cancel_requested_at = row.cancel_sent_at = now()
            row.slurm_job_id, row.phase = 7, "running"
        assert api.post(f"{URL}/{job['id']}/cancel").status_code == 202
        with app.database.reading() as session:
            assert [found.id for found in worklists.to_cancel(session, app.client.kind)] == [job["id"]]

    def test_twice_is_a_conflict(self, api: TestClient, job: Json) -> None:
        api.post(f"{URL}/{job['id']}/cancel")
        assert api.post(f"{URL}/{job['id']}/cancel").status_code == 409


class TestGetJobScript:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"{URL}/{job['id']}/script").status_code == 401

    def test_is_the_script_that_is_submitted(self, api: TestClient, app: Application, job: Json) -> None:
        answer = api.get(f"{URL}/{job['id']}/script")
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith("#!/bin/bash")
        assert job["id"] not in answer.text
        assert str(app.runs) in answer.text


class TestGetJobLogs:
    def test_anonymous(self, browser: TestClient, job: Json) -> None:
        assert browser.get(f"{URL}/{job['id']}/logs").status_code == 401

    def test_nothing_yet(self, api: TestClient, job: Json) -> None:
        found = api.get(f"{URL}/{job['id']}/logs").raise_for_status().json()
        assert (found["text"], found["size"], found["files"], found["attempt"]) == ("", 0, [], None)

    def test_pieces_put_together_are_the_log(
        self, api: TestClient, job: Json, run_of: Callable[[Json], HandMadeRun]
    ) -> None:
        text = "0: öäü <script>alert(1)</script> 漢字\n" * 3
        (run_of(job).run / "logs" / "job-7.log").write_text(text)
        got, offset = "", 0
        while True:
            found = api.get(f"{URL}/{job['id']}/logs", params={"offset": offset, "limit": 5}).json()
            got += found["text"]
            if found["next_offset"] == found["size"]:
                break
            assert found["next_offset"] > offset
            offset = found["next_offset"]
        assert got == text

    def test_from_the_end(self, api: TestClient, job: Json, run_of: Callable[[Json], HandMadeRun]) -> None:
        (run_of(job).run / "logs" / "job-7.log").write_text("first\nlast\n")
        found = api.get(f"{URL}/{job['id']}/logs", params={"offset": -5}).json()
        assert (found["text"], found["offset"], found["files"]) == ("last\n", 6, ["job-7.log"])

    def test_bytes_that_are_no_text(self, api: TestClient, job: Json, run_of: Callable[[Json], HandMadeRun]) -> None:
        (run_of(job).run / "logs" / "job-7.log").write_bytes(b"a\xff\x00b")
        found = api.get(f"{URL}/{job['id']}/logs").json()
        assert found["text"] == "a\ufffd\x00b"
        assert found["next_offset"] == 4

    def test_only_plain_files_of_the_runs_own_are_logs(
        self, api: TestClient, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun], tmp_path: Path
    ) -> None:
        hand = run_of(job)
        logs = hand.run / "logs"
        (tmp_path / "secret").write_text("secret")
        (logs / "job-1.log").write_text("own")
        (logs / "job-2.log").symlink_to(tmp_path / "secret")
        (logs / "job-3.log").symlink_to(tmp_path / "nowhere")
        (logs / "job-4.log").mkdir()
        os.mkfifo(logs / "job-5.log")
        found = api.get(f"{URL}/{job['id']}/logs").raise_for_status().json()
        assert (found["text"], found["files"]) == ("own", ["job-1.log"])
        assert newest_size(hand.run) == 3

    def test_an_attempt_that_is_not(self, api: TestClient, job: Json) -> None:
        assert api.get(f"{URL}/{job['id']}/logs", params={"attempt": 3}).status_code == 404
