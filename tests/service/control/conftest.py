"""A scheduler that can be away or lose answers, an application on it, and how tests of control ask and look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.reconcile import reconcile
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmJob, SlurmUnavailableError, Submission

Json = dict[str, Any]
URL = "/api/v1/jobs"


class Slurm(LocalClient):
    """A real local queue that can be away, or lose the answer of a requeue or submit that it did carry out."""

    away = False
    loses: str | None = None

    def submit(self, submission: Submission) -> int:
        number = super().submit(submission)
        self._lose("submit")
        return number

    def queue(self) -> list[SlurmJob]:
        if self.away:
            raise SlurmUnavailableError("connection timed out")
        return super().queue()

    def hold(self, job_id: int) -> None:
        if self.away:
            raise SlurmUnavailableError("connection timed out")
        super().hold(job_id)

    def requeue(self, job_id: int) -> None:
        super().requeue(job_id)
        self._lose("requeue")

    def _lose(self, what: str) -> None:
        if self.loses == what:
            self.loses = None
            raise SlurmUnavailableError("connection timed out")


@pytest.fixture
def settings(database_url: str, lockstep_home: Path, tmp_path: Path) -> Settings:
    """The ranks' interpreter is a shell that waits to be ended; nothing waits between tries."""
    waits = tmp_path / "python"
    waits.write_text("#!/bin/bash\nexec sleep 300\n")
    waits.chmod(0o755)
    return Settings(
        home=lockstep_home, database_url=database_url, dispatch=False, exit_grace_seconds=0, python=str(waits),
        submit_retry_seconds=0.001, submit_retry_limit_seconds=0.001,
    )  # fmt: skip


@pytest.fixture
def slurm(settings: Settings) -> Iterator[Slurm]:
    """The scheduler; its only slot is for one job at a time."""
    client = Slurm(settings.home / "local")
    yield client
    client.away = False
    for job in client.queue():
        client.cancel(job.id)


@pytest.fixture
def browser(settings: Settings, slurm: Slurm) -> Iterator[TestClient]:
    """A caller of an application on that scheduler."""
    with TestClient(create_app(settings, slurm), base_url="http://127.0.0.1") as client:
        yield client


def post(api: TestClient, path: str, **options: Any) -> Json:
    return api.post(f"{URL}{path}", **options).raise_for_status().json()  # type: ignore[no-any-return]


def get(api: TestClient, job: Json) -> Json:
    return api.get(f"{URL}/{job['id']}").raise_for_status().json()  # type: ignore[no-any-return]


def change(app: Application, job: Json, **columns: Any) -> None:
    """Puts the job's row into a state that takes long to come about."""
    with app.database.writing() as session:
        row = repository.lock(session, job["id"])
        assert row is not None
        for name, value in columns.items():
            setattr(row, name, value)


def one_behind_another(api: TestClient, app: Application, spec: Json) -> tuple[Json, Json]:
    """Two jobs in Slurm's hands, of which the first has the only slot and the second waits for it."""
    jobs = []
    for _ in range(2):
        jobs.append(post(api, "", json=spec))
        assert submit_due(app) == 1
    reconcile(app)
    assert [get(api, job)["phase"] for job in jobs] == ["running", "waiting"]
    return jobs[0], jobs[1]


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)
