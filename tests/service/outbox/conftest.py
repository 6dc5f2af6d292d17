"""The outbox on a real local queue that a test can silence, and the jobs that are stored for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch import worklists
from lockstep_service.dispatch.submit import take_turn
from lockstep_service.settings import Settings
from lockstep_service.tables import JobRow
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmJob, SlurmUnavailableError, Submission

Json = dict[str, Any]


class Queue(LocalClient):
    """A real local queue that keeps its jobs from starting, counts what it is asked, and says no where a test wants it.

    ``meets``: called with each submission before it is taken; it may raise what a client raises.
    """

    kind = "command"
    meets: Callable[[Submission], object] = staticmethod(lambda _submission: None)
    loses = 0
    """Answers of submits that were taken."""
    silent = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.submits: list[str] = []
        self.finds: list[int] = []
        self.pings = 0
        # The only slot is taken, so that all others stay pending, and none is held.
        script = folder.parent / "blocker.sh"
        script.write_text("#!/bin/bash\nsleep 600\n")
        self.blocker = super().submit(Submission(script, "blocker", folder.parent / "blocker.log", folder.parent))

    def submit(self, submission: Submission) -> int:
        self.submits.append(submission.name)
        self.answer()
        self.meets(submission)
        number = super().submit(submission)
        if self.loses > 0:
            self.loses -= 1
            raise SlurmUnavailableError("connection timed out")
        return number

    def find(self, *names: str) -> list[SlurmJob]:
        self.finds.append(len(names))
        self.answer()
        return super().find(*names)

    def ping(self) -> None:
        self.pings += 1
        self.answer()

    def answer(self) -> None:
        if self.silent:
            raise SlurmUnavailableError("connection timed out")

    def ours(self) -> list[SlurmJob]:
        """All jobs but the blocker."""
        return [job for job in super().queue() if job.id != self.blocker]


@pytest.fixture
def settings(database_url: str, lockstep_home: Path) -> Settings:
    """One submit at a time, in an order that a test can tell; hardly any wait between tries."""
    return Settings(
        home=lockstep_home, database_url=database_url, dispatch=False, submit_parallel=1, submit_rate=0,
        submit_retry_seconds=0.05, submit_retry_limit_seconds=0.05, lookup_seconds=0.05,
    )  # fmt: skip


@pytest.fixture
def slurm(settings: Settings) -> Iterator[Queue]:
    """The scheduler."""
    client = Queue(settings.home / "local")
    yield client
    for job in LocalClient.queue(client):
        client.cancel(job.id)


@pytest.fixture
def browser(settings: Settings, slurm: Queue) -> Iterator[TestClient]:
    """A caller of an application on that scheduler."""
    with TestClient(create_app(settings, slurm), base_url="http://127.0.0.1:8080") as client:
        yield client


@pytest.fixture
def store(api: TestClient, spec: Json) -> Callable[..., list[str]]:
    """Stores jobs that are to be submitted, and returns their ids."""

    def many(count: int, **changes: Any) -> list[str]:
        answers = [api.post("/api/v1/jobs", json=spec | changes) for _ in range(count)]
        return [answer.raise_for_status().json()["id"] for answer in answers]

    return many


Store = Callable[..., list[str]]


def rows(app: Application, ids: list[str]) -> list[JobRow]:
    with app.database.reading() as session:
        return list(worklists.outgoing(session, ids))


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def turns_until(app: Application, what: Callable[[], bool]) -> None:
    until(lambda: (take_turn(app), what())[1])
