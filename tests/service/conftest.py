"""Fixtures of the service's tests: an application on each database, its callers, and runs made by hand."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import NullPool, create_engine, text

from lockstep_service.app import create_app
from lockstep_service.auth.service import token_hash
from lockstep_service.boundary import Application
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import (
    Claim,
    Exit,
    as_json,
    begin_start,
    claim_file,
    exit_file,
    make_run_directory,
    spool_file,
)
from support import disks, postgres

Json = dict[str, Any]
SPEC: Json = {"name": "digits", "training": {"model": "digits-mlp", "data": "digits", "epochs": 2}}


@pytest.fixture(scope="session")
def postgres_database(postgres_server: postgres.Server) -> str:
    """One PostgreSQL database for all tests here: making one for each takes longer than the tests."""
    return postgres_server.new_database()


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """That database, emptied."""
    with create_engine(postgres_database, poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return postgres_database


@pytest.fixture
def spec() -> Json:
    """A spec that every machine can run."""
    return json.loads(json.dumps(SPEC))  # type: ignore[no-any-return]


@pytest.fixture
def settings(database_url: str, lockstep_home: Path) -> Settings:
    """Settings of a service whose loops the test turns itself."""
    return Settings(
        home=lockstep_home,
        database_url=database_url,
        client="local",
        dispatch=False,
        exit_grace_seconds=0,
        ingest_seconds=0.1,
    )


@pytest.fixture
def browser(settings: Settings) -> Iterator[TestClient]:
    """A caller that nobody knows yet."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def app(browser: TestClient) -> Application:
    """The application's parts."""
    found: Application = browser.app.state.application  # type: ignore[attr-defined]
    found.answers.patience = 60  # a busy machine may take more than a second to say what it has
    return found


@pytest.fixture
def api(browser: TestClient, app: Application) -> TestClient:
    """A caller with the service's token; the same connection as ``browser``'s, without its cookies."""
    return TestClient(
        browser.app,
        base_url="http://127.0.0.1:8080",
        headers={"Authorization": f"Bearer {app.keys.token}"},
        raise_server_exceptions=False,
    )


@pytest.fixture
def job(api: TestClient, spec: Json) -> Json:
    """A stored job that Slurm has not heard of."""
    return api.post("/api/v1/jobs", json=spec).raise_for_status().json()  # type: ignore[no-any-return]


@pytest.fixture
def job_token(app: Application, job: Json) -> str:
    """The job's own token."""
    with app.database.writing() as session:
        row = repository.lock(session, job["id"])
        assert row is not None
        row.token_hash = token_hash("the job's token")
    return "the job's token"


@dataclass
class HandMadeRun:
    """A run directory as ranks leave it, without ranks."""

    run: Path
    _seqs: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The job's id."""
        return self.run.name

    def claim(
        self, attempt: int = 1, *, pid: int | None = None, slurm_job_id: int | None = None, restart: int = 0
    ) -> None:
        """An attempt is claimed, by this very process unless said otherwise."""
        claim = Claim(
            attempt=attempt, fence=attempt, slurm_job_id=slurm_job_id, restart_count=restart, cluster="site",
            node="node1", nodes=("node1",), ranks=1, host=socket.gethostname(), pid=pid or os.getpid(),
            claimed=time.time(), local_id="l",
        )  # fmt: skip
        claim_file(self.run, attempt).write_text(as_json(claim))

    def end(
        self,
        attempt: int = 1,
        *,
        code: int | None = 0,
        signal: int | None = None,
        message: str | None = None,
        gone: bool = True,
    ) -> None:
        """The attempt leaves its exit record; ``gone``: and its process has ended."""
        if gone:
            claim = claim_file(self.run, attempt)
            claim.write_text(json.dumps(json.loads(claim.read_text()) | {"pid": 2**22 + 1}))
        found = Exit(attempt, attempt, code, signal, 0, "node1", message, time.time())
        exit_file(self.run, attempt).write_text(as_json(found))

    def line(
        self, rank: int = 0, *, attempt: int = 1, kind: str = "step", step: int | None = None, **values: Any
    ) -> bytes:
        """The next record of a rank, as its writer would write it."""
        seq = self._seqs[attempt, rank] = self._seqs.get((attempt, rank), 0) + 1
        record = {"v": 1, "attempt": attempt, "rank": rank, "seq": seq, "time": 1764000000.0 + seq, "kind": kind}
        return json.dumps(record | {"step": step, "values": values}).encode() + b"\n"

    def spool(self, *lines: bytes, attempt: int = 1, node: str = "node1") -> Path:
        """Appends lines to a node's spool."""
        file = spool_file(self.run, attempt, node)
        file.parent.mkdir(exist_ok=True)
        with file.open("ab") as opened:
            opened.write(b"".join(lines))
        return file


@pytest.fixture
def made_by_hand(tmp_path: Path, spec: Json) -> Callable[[], HandMadeRun]:
    """Makes run directories as a script that is run by hand does."""

    def make() -> HandMadeRun:
        text = json.dumps(spec)
        return HandMadeRun(make_run_directory(tmp_path / "by-hand", new_job_id(), text, "#!/bin/bash\n", by_hand=True))

    return make


@pytest.fixture
def run_of(app: Application) -> Callable[[Json], HandMadeRun]:
    """The run directory of a stored job, made as dispatch and a start of its script make it."""

    def make(job: Json) -> HandMadeRun:
        with app.database.reading() as session:
            row = repository.get(session, job["id"])
        assert row is not None
        run = Path(row.run_dir)
        return HandMadeRun(begin_start(make_run_directory(run.parent, row.id, row.spec, row.script, by_hand=False)))

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    with disks.small(tmp_path / "disk") as found:
        yield found
