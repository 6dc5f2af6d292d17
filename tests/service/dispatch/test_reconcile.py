"""Reconciling: only evidence ends a job, and silence is not death; a real local queue does the work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.clusters.service import refresh
from lockstep_service.dispatch.down import Down
from lockstep_service.dispatch.ingest import unfinished
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.tables import AttemptRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob, SlurmNode
from lockstep_slurm.job.identity import slurm_name
from lockstep_slurm.job.rundir import Claim, as_json, begin_start, claim_file

from .conftest import Json, Unreliable, row, submit_until_taken, until


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
        assert found["reason"].startswith("No rank was started. /bin/false on ")
        assert "cannot run ranks" in api.get(f"/api/v1/jobs/{job['id']}/logs").json()["text"]

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
        happened = [entry["kind"] for entry in api.get(f"/api/v1/jobs/{job['id']}/timeline").json()["items"]]
        assert happened[:4] == ["stored", "dispatched", "stale", "answered"]
        assert happened.count("stale") == happened.count("answered") == 1

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
        with app.database.writing() as session:
            held = repository.lock(session, job["id"])
            assert held is not None
            held.attempts.append(AttemptRow(number=1, ranks=1, nodes=["h2"], started_at=now()))
        api.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()
        pass_on_cancels(app)
        found = row(app, job)
        assert found.phase == "ended badly"
        assert [attempt.ended_at for attempt in found.attempts] == [found.ended_at], "no clock of it runs on"
        unfinished(app, everything=False)
        until(lambda: not unfinished(app, everything=False))

    def test_a_claim_that_is_none_stops_no_other_job(
        self, api: TestClient, app: Application, slurm: Unreliable, spec: Json
    ) -> None:
        odd, good = (api.post("/api/v1/jobs", json=spec).json() for _ in range(2))
        submit_due(app)
        claim = {"attempt": 1, "fence": 1, "slurm_job_id": 10**30, "restart_count": 0, "cluster": "c", "node": "n",
                 "nodes": [], "ranks": 1, "host": "h", "pid": 1, "claimed": 1.0}  # fmt: skip
        run = begin_start(Path(row(app, odd).run_dir))
        for change in ({}, {"claimed": "yesterday"}, {"nodes": 7}, {"slurm_job_id": 1}):
            for number in (1, 2) if "slurm_job_id" in change else (1,):  # a whole one, and its copy
                claim_file(run, number).write_text(json.dumps(claim | change))
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


class TestFailedNodes:
    @pytest.mark.parametrize(("state", "wanted"), [("PENDING", 0), ("NODE_FAIL", 3)])
    def test_nodes_are_wanted_when_one_ended_a_job_and_not_while_one_waits(
        self,
        app: Application,
        slurm: Unreliable,
        job: Json,
        monkeypatch: pytest.MonkeyPatch,
        state: str,
        wanted: int,
    ) -> None:
        submit_until_taken(app)
        found = row(app, job)
        assert found.slurm_job_id is not None
        begin_start(Path(found.run_dir))
        claim = Claim(
            attempt=1, fence=1, slurm_job_id=found.slurm_job_id, restart_count=0, cluster="site", node="h2",
            nodes=("h2",), ranks=1, host="h", pid=1, claimed=1.0, local_id="l",
        )  # fmt: skip
        claim_file(Path(found.run_dir), 1).write_text(as_json(claim))
        told = SlurmJob(found.slurm_job_id, slurm_name("digits", job["id"]), state, restarts=1)
        asked: list[str] = []

        def nodes() -> NoReturn:
            pytest.fail("a cycle asked for nodes")

        monkeypatch.setattr(slurm, "queue", lambda: [told])
        monkeypatch.setattr(slurm, "nodes", nodes)
        monkeypatch.setattr(app, "want_nodes", lambda: asked.append("nodes"))
        monkeypatch.setattr(app, "settings", app.settings.model_copy(update={"exit_grace_seconds": 60.0}))
        for _ in range(3):
            reconcile(app)
        assert len(asked) == wanted
        assert row(app, job).phase == ("waiting" if state == "PENDING" else "running")

    def test_the_node_that_is_named_is_the_one_that_slurm_gave_up_not_one_that_only_did_not_answer_yet(
        self, app: Application, slurm: Unreliable, job: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit_until_taken(app)
        found = row(app, job)
        assert found.slurm_job_id is not None
        name = slurm_name("digits", job["id"])
        told = SlurmJob(found.slurm_job_id, name, "NODE_FAIL", nodes=("h1", "h2"))
        silent = SlurmNode("h2", "ALLOCATED", ("NOT_RESPONDING",), cpus=64)
        answers = [silent, replace(silent, state="DOWN", reason="Not responding")]
        monkeypatch.setattr(slurm, "queue", lambda: [told])
        monkeypatch.setattr(slurm, "nodes", lambda: [SlurmNode("h1", "IDLE", cpus=64), answers.pop(0)])
        monkeypatch.setattr(app, "want_nodes", lambda: setattr(app.answers, "wanted", True))
        app.answers.wanted = True
        refresh(app)  # Slurm is asked just before it gives the node up
        reconcile(app)
        assert row(app, job).phase == "running"
        refresh(app)
        reconcile(app)
        ended = row(app, job)
        assert (ended.phase, ended.reason) == (
            "ended badly", "A node failed under it: Slurm says h2 is DOWN (Not responding)"
        )  # fmt: skip

    def test_a_node_that_does_not_respond_is_named_while_its_job_waits_again(
        self, app: Application, slurm: Unreliable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slurm, "nodes", lambda: [SlurmNode("h2", "ALLOCATED", ("NOT_RESPONDING",), cpus=64)])
        app.answers.wanted = True
        refresh(app)
        assert Down(app).among(frozenset({"h1", "h2"}), fresh=False) == ("h2 is ALLOCATED and does not respond",)
