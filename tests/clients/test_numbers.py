"""A service over a real Slurm, of whose job numbers one has become another job's: nothing is told that one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from clients.desk import Desk, until
from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_service.wire import now

JOBS = "/api/v1/jobs"


@pytest.fixture
def api(command_desk: Desk, tmp_path: Path) -> Iterator[TestClient]:
    """A caller of a service whose loops the test turns itself."""
    settings = Settings(home=tmp_path / "home", dispatch=False, exit_grace_seconds=0)
    with TestClient(create_app(settings, command_desk.client), base_url="http://127.0.0.1") as client:
        client.headers["Authorization"] = f"Bearer {parts(client).keys.token}"
        yield client


def parts(api: TestClient) -> Application:
    """The application's parts."""
    found: Application = api.app.state.application  # type: ignore[attr-defined]
    return found


def job(api: TestClient, job_id: str) -> dict[str, Any]:
    return api.get(f"{JOBS}/{job_id}").raise_for_status().json()  # type: ignore[no-any-return]


def cancel(api: TestClient, job_id: str) -> None:
    api.post(f"{JOBS}/{job_id}/cancel").raise_for_status()
    pass_on_cancels(parts(api))


def test_a_cancel_reaches_its_own_job_and_leaves_alone_what_has_the_number_of_an_older_one(
    api: TestClient, command_desk: Desk
) -> None:
    spec = {"name": "digits", "training": {"model": "digits-mlp", "data": "digits", "epochs": 2}}
    old, own = (api.post(JOBS, json=spec).raise_for_status().json()["id"] for _ in range(2))
    stranger = command_desk.in_state(command_desk.run(hold=True), "PENDING")
    app = parts(api)
    with app.database.writing() as session:
        row = repository.lock(session, old)
        assert row is not None
        row.slurm_job_id, row.dispatched_at, row.phase = stranger.id, now(), "waiting"
    until(lambda: submit_due(app) == 1, "its own job in Slurm's hands")
    command_desk.submitted.append(job(api, own)["slurm_job_id"])
    reconcile(app)
    assert job(api, old)["phase"] == "unknown"
    cancel(api, old)
    assert job(api, old)["phase"] == "ended badly"
    assert f"is called {stranger.name!r}" in job(api, old)["reason"]
    assert command_desk.job(stranger.id) == stranger
    cancel(api, own)
    command_desk.in_state(job(api, own)["slurm_job_id"], "CANCELLED")
