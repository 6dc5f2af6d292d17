"""docs/backup.md, tried: its own commands back up a service that runs and restore it, on both databases."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.dispatch.restored import doubt_submits
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.settings import Settings
from lockstep_slurm.client import LocalClient
from lockstep_slurm.job.identity import slurm_name
from support import postgres
from support.lockstep import wait_for

from .conftest import HandMadeRun

Json = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "backup.md"


def commands(title: str) -> str:
    """The page's block that begins with the comment ``title``."""
    (found,) = re.findall(rf"```sh\n# {re.escape(title)}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return str(found)


class Backup:
    """The commands of the page, run as a person runs them."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._kind = "sqlite" if settings.url.startswith("sqlite") else "postgres"
        programs = postgres.binaries()
        path = [str(Path(sys.executable).parent), *([str(programs)] if programs else []), "/usr/bin", "/bin"]
        url = make_url(settings.url)
        self._environment = {
            "PATH": ":".join(path),
            "HOME": os.environ["HOME"],
            "LOCKSTEP_HOME": str(settings.home),
            "BACKUP": str(folder),
            "DATABASE": url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False),
        }

    def run(self, what: str) -> None:
        """Runs one of the page's blocks for this kind of database."""
        done = subprocess.run(
            ["bash", "-euc", commands(f"{self._kind}: {what}")],
            env=self._environment, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.fixture
def settings(database_url: str, lockstep_home: Path) -> Settings:
    """A service in its home, where the page expects the SQLite database; its jobs end at once."""
    url = None if database_url.startswith("sqlite") else database_url
    return Settings(
        home=lockstep_home, database_url=url, client="local", dispatch=False, python="/bin/false", exit_grace_seconds=0
    )


def started(settings: Settings) -> tuple[TestClient, Application]:
    """A service of its own life, whose loops the test turns."""
    client = TestClient(create_app(settings), base_url="http://127.0.0.1:8080")
    app: Application = client.app.state.application  # type: ignore[attr-defined]
    client.headers["Authorization"] = f"Bearer {app.keys.token}"
    return client, app


def submitted(api: TestClient, spec: Json, name: str) -> str:
    return str(api.post("/api/v1/jobs", json=spec | {"name": name}).raise_for_status().json()["id"])


def told(api: TestClient, job_id: str) -> list[Json]:
    """All that a page shows of a job."""
    return [
        api.get(f"/api/v1/jobs/{job_id}{what}").raise_for_status().json()
        for what in ("", "/metrics", "/timeline", "/placement")
    ]


def test_what_was_backed_up_is_there_again_and_nothing_is_submitted_twice(
    settings: Settings, spec: Json, tmp_path: Path, made_by_hand: Callable[[], HandMadeRun]
) -> None:
    backup = Backup(settings, tmp_path / "backup")
    hand = made_by_hand()
    hand.claim()
    hand.spool(*(hand.line(step=step, loss=1 / step) for step in range(1, 6)))
    hand.end()
    with started(settings)[0] as api:
        app: Application = api.app.state.application  # type: ignore[attr-defined]
        token = app.keys.token
        ended = api.post("/api/v1/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status().json()["id"]
        cancelled = submitted(api, spec, "cancelled")
        api.post(f"/api/v1/jobs/{cancelled}/cancel").raise_for_status()
        waiting = submitted(api, spec, "waiting")
        before = {job_id: told(api, job_id) for job_id in (ended, cancelled, waiting)}
        assert len(before[ended][1]["series"]) > 0
        backup.run("back up")  # while the service has the database open
        # And then life goes on, of which the backup knows nothing.
        later = submitted(api, spec, "later")
        assert submit_due(app) == 2
        api.post("/api/v1/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status()
        run_of_later = api.get(f"/api/v1/jobs/{later}").json()["run_dir"]
    app.database.close()
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "backup").iterdir()} == {0}
    (settings.home / "token").write_text("lost\n")
    backup.run("restore")
    with started(settings)[0] as api:
        app = api.app.state.application  # type: ignore[attr-defined]
        assert app.keys.token == token
        assert {job_id: told(api, job_id) for job_id in (ended, cancelled, waiting)} == before
        assert api.get(f"/api/v1/jobs/{later}").status_code == 404
        queue = LocalClient(settings.home / "local")
        assert len(queue.find(slurm_name("waiting", waiting))) == 1
        assert doubt_submits(app) == [waiting]
        assert submit_due(app) == 1
        (copy,) = queue.find(slurm_name("waiting", waiting))
        assert api.get(f"/api/v1/jobs/{waiting}").json()["slurm_job_id"] == copy.id
        # What came after the backup has its page again by its run directory.
        again = api.post("/api/v1/jobs/import", json={"run_dir": run_of_later}).raise_for_status()
        assert (again.json()["id"], again.json()["name"]) == (later, "later")
        assert "lockstep import" in commands("both: what came after the backup")
        for job in queue.queue():
            queue.cancel(job.id)
    app.database.close()


def test_what_is_held_back_is_not_submitted_to_be_looked_for_but_named(
    settings: Settings, spec: Json, caplog: pytest.LogCaptureFixture
) -> None:
    with started(settings)[0] as api:
        app: Application = api.app.state.application  # type: ignore[attr-defined]
        held = submitted(api, spec, "held")
        api.post(f"/api/v1/jobs/{held}/hold").raise_for_status()
        caplog.set_level(logging.WARNING)
        assert doubt_submits(app) == []
        assert submit_due(app) == 0
        assert f"squeue --name=held.{held}" in caplog.text
        with app.database.reading() as session:
            row = repository.get(session, held)
        assert row is not None
        assert row.submit_started_at is None
    app.database.close()


def test_a_service_that_is_told_that_it_was_restored_finds_what_slurm_has(settings: Settings, spec: Json) -> None:
    with started(settings)[0] as api:
        app: Application = api.app.state.application  # type: ignore[attr-defined]
        job = submitted(api, spec, "restored")
        assert submit_due(app) == 1
        with app.database.writing() as session:  # as a backup from before the submit has it
            row = repository.lock(session, job)
            assert row is not None
            number, row.slurm_job_id, row.dispatched_at, row.phase = row.slurm_job_id, None, None, "accepted"
    app.database.close()
    with started(settings.model_copy(update={"dispatch": True, "restored": True}))[0] as api:
        found = wait_for("the job to be found", lambda: api.get(f"/api/v1/jobs/{job}").json()["slurm_job_id"], 60)
        assert found == number
    assert len(LocalClient(settings.home / "local").find(slurm_name("restored", job))) == 1
