"""A scheduler whose answers a test writes, jobs that it has, and the dispatch loops turned by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Lock

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.loops import Dispatch
from lockstep_service.dispatch.reconcile import reconcile
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import SlurmJob, SlurmNode, SlurmPartition, SlurmUnavailableError, Submission
from lockstep_slurm.job.identity import slurm_name

from ..conftest import HandMadeRun as HandMadeRun  # noqa: TID252 - of the folder above, handed on
from ..conftest import Json as Json  # noqa: TID252

MANY = 8


@dataclass
class Answers:
    """What Slurm answers next: None is silence."""

    queue: list[SlurmJob] | None = field(default_factory=list)
    records: list[SlurmJob] | None = field(default_factory=list)
    nodes: list[SlurmNode] | None = None
    """By default this machine, as one node."""
    asked: list[str] = field(default_factory=list)
    silent: bool = False
    """Whether nothing at all is answered."""
    late: int = 0
    """Of how many submits that are not answered Slurm takes the job all the same, and shows it when it speaks again."""

    def tell(self, job: SlurmJob, **changes: object) -> None:
        """Changes what is told of one job."""
        assert self.queue is not None
        self.queue = [
            replace(one, **changes) if one.id == job.id else one  # type: ignore[arg-type]
            for one in self.queue
        ]


class Scripted(LocalClient):
    """A scheduler that says what the test wants, and keeps all that is submitted pending."""

    kind = "command"

    def __init__(self, folder: Path, answers: Answers) -> None:
        super().__init__(folder)
        self._answers = answers
        self._numbers = count(1001)
        self._lock = Lock()

    def submit(self, submission: Submission) -> int:
        found = self._answers
        with self._lock:
            assert found.queue is not None
            reason = "JobHeldUser" if submission.hold else "Priority"
            job = SlurmJob(next(self._numbers), submission.name, "PENDING", reason=reason)
            if not found.silent or found.late > 0:
                found.late -= found.silent
                found.queue.append(job)
        self._ask("submit")
        return job.id

    def queue(self) -> list[SlurmJob]:
        self._ask("queue")
        if self._answers.queue is None:
            raise SlurmUnavailableError("connection timed out")
        return list(self._answers.queue)

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        self._ask("records")
        if self._answers.records is None:
            raise SlurmUnavailableError("the accounting database does not answer")
        return [one for one in self._answers.records if one.id in set(ids)]

    def find(self, *names: str) -> list[SlurmJob]:
        self._ask("find")
        return [one for one in self._answers.queue or [] if one.name in names]

    def release(self, job_id: int) -> None:
        self._ask("release")
        with self._lock:
            (job,) = (one for one in self._answers.queue or [] if one.id == job_id)
            self._answers.tell(job, reason="Priority")

    def cancel(self, job_id: int) -> None:
        self._ask("cancel")
        with self._lock:
            (job,) = (one for one in self._answers.queue or [] if one.id == job_id)
            self._answers.tell(job, state="CANCELLED", reason=None)

    def nodes(self) -> list[SlurmNode]:
        self._ask("nodes")
        return super().nodes() if self._answers.nodes is None else list(self._answers.nodes)

    def partitions(self) -> list[SlurmPartition]:
        self._ask("partitions")
        return super().partitions()

    def ping(self) -> None:
        self._ask("ping")

    def _ask(self, what: str) -> None:
        self._answers.asked.append(what)
        if self._answers.silent:
            raise SlurmUnavailableError("connection timed out")


class Turns:
    """The dispatch loops of an application without threads: each turns when its thread would, by ``time.monotonic``."""

    def __init__(self, app: Application) -> None:
        self._dispatch = Dispatch(app)
        self._dispatch.hear()
        self._due: dict[str, float] = {}

    def take(self) -> Iterator[str]:
        """Takes one turn of each loop that is due, or was woken; its name, after each."""
        for loop in self._dispatch.loops:
            if loop.woken.is_set() or time.monotonic() >= self._due.get(loop.name, 0.0):
                loop.woken.clear()
                self._due[loop.name] = loop.work() + time.monotonic()
                yield loop.name


def dispatched(app: Application, api: TestClient, spec: Json, many: int) -> list[SlurmJob]:
    """So many jobs in Slurm's hands, as they are told while they wait."""
    told = []
    for number in range(1, many + 1):
        found = api.post("/api/v1/jobs", json=spec).raise_for_status().json()
        with app.database.writing() as session:
            row = repository.lock(session, found["id"])
            assert row is not None
            row.slurm_job_id, row.dispatched_at, row.phase = number, now(), "waiting"
            repository.changed(session, row)
        told.append(SlurmJob(number, slurm_name("digits", found["id"]), "PENDING", reason="Priority"))
    return told


def row(app: Application, job: SlurmJob) -> JobRow:
    with app.database.reading() as session:
        found = repository.get(session, job.name.rpartition(".")[2])
    assert found is not None
    return found


def run_of(app: Application, job: SlurmJob) -> HandMadeRun:
    """Its run directory, as dispatch makes it."""
    run = Path(row(app, job).run_dir)
    for name in ("claims", "exit", "spool"):
        (run / name).mkdir(parents=True, exist_ok=True)
    return HandMadeRun(run)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def settings(database_url: str, lockstep_home: Path) -> Settings:
    return Settings(home=lockstep_home, database_url=database_url, dispatch=False, exit_grace_seconds=0)


@pytest.fixture
def browser(settings: Settings, answers: Answers) -> Iterator[TestClient]:
    client = Scripted(settings.home / "local", answers)
    with TestClient(create_app(settings, client), base_url="http://127.0.0.1") as caller:
        yield caller


@pytest.fixture
def jobs(app: Application, api: TestClient, spec: Json, answers: Answers) -> list[SlurmJob]:
    """Many jobs that wait, and have been looked at."""
    told = dispatched(app, api, spec, MANY)
    answers.queue = list(told)
    assert reconcile(app)
    assert not reconcile(app)
    answers.asked.clear()
    return told
