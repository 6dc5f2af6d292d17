"""A scheduler that can be away, refuse and lose answers, an application on it, and what tests of dispatch look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_service.tables import JobRow
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmJob, SlurmRefusedError, SlurmUnavailableError, Submission

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

    def find(self, *names: str) -> list[SlurmJob]:
        if self.away:
            raise SlurmUnavailableError("connection timed out")
        return super().find(*names)


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
