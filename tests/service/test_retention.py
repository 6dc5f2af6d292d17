"""How long things are kept: what goes, what stays as it was, and what a dry run says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.jobs import repository as jobs
from lockstep_service.metrics import repository
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.retention import Ages, Plan, Upkeep, plan, prune
from lockstep_service.wire import now

from .conftest import HandMadeRun

Json = dict[str, Any]
OLD, YOUNG = timedelta(days=40), timedelta(days=2)
MONTH = Ages.of_days(records=30, jobs=None)


@pytest.fixture
def ended(
    app: Application, api: TestClient, spec: Json, run_of: Callable[[Json], HandMadeRun]
) -> Callable[..., HandMadeRun]:
    """Makes a job that ended so long ago, with records."""

    def make(ago: timedelta, *, final: bool = True) -> HandMadeRun:
        hand = run_of(api.post("/api/v1/jobs", json=spec).json())
        hand.spool(*(hand.line(step=step, loss=1.0 / step) for step in range(1, 9)))
        read_spools(app, hand.id, hand.run)
        with app.database.writing() as session:
            row = jobs.lock(session, hand.id)
            assert row is not None
            row.phase, row.ended_at, row.final = "ended well", now() - ago, final
        return hand

    return make


def records(app: Application, hand: HandMadeRun) -> int:
    with app.database.reading() as session:
        return len(list(repository.records(session, hand.id)))


class TestPrune:
    def test_records_go_and_their_curves_stay_as_they_were(
        self, app: Application, api: TestClient, ended: Callable[..., HandMadeRun]
    ) -> None:
        old, young = ended(OLD), ended(YOUNG)
        before = [api.get(f"/api/v1/jobs/{hand.id}/metrics").json() for hand in (old, young)]
        found = plan(app.database, MONTH, now())
        assert found == Plan([], [old.id])
        told = prune(app.database, found, dry_run=True)
        assert (told.jobs_without_records, told.records, records(app, old)) == (1, 8, 8)
        assert prune(app.database, found, dry_run=False) == told
        assert (records(app, old), records(app, young)) == (0, 8)
        app.figures = FiguresCache()
        assert [api.get(f"/api/v1/jobs/{hand.id}/metrics").json() for hand in (old, young)] == before
        assert plan(app.database, MONTH, now()) == Plan([], [])

    def test_what_comes_after_all_is_added(self, app: Application, api: TestClient, ended: Any) -> None:
        old = ended(OLD)
        prune(app.database, plan(app.database, MONTH, now()), dry_run=False)
        old.spool(old.line(step=9, loss=7.0))
        read_spools(app, old.id, old.run)
        found = api.get(f"/api/v1/jobs/{old.id}/metrics").json()["series"][0]
        assert (found["step"], found["value"][-1]) == (list(range(1, 10)), 7.0)

    def test_whole_jobs_go_and_their_run_directories_stay(self, app: Application, api: TestClient, ended: Any) -> None:
        old, young, live = ended(OLD), ended(YOUNG), ended(OLD, final=False)
        pruned = prune(app.database, plan(app.database, Ages.of_days(1, 30), now()), dry_run=False)
        assert (pruned.jobs, pruned.jobs_without_records, pruned.records) == (1, 1, 16)
        assert [api.get(f"/api/v1/jobs/{hand.id}").status_code for hand in (old, young, live)] == [404, 200, 200]
        assert old.run.is_dir()
        assert records(app, live) == 8

    def test_a_job_that_another_waits_for_stays(
        self, app: Application, api: TestClient, spec: Json, ended: Any
    ) -> None:
        old = ended(OLD)
        follower = api.post(f"/api/v1/jobs?after={old.id}", json=spec).raise_for_status().json()
        assert plan(app.database, Ages.of_days(None, 30), now()).jobs == []
        with app.database.writing() as session:
            row = jobs.lock(session, follower["id"])
            assert row is not None
            row.phase, row.final = "ended badly", True
        assert plan(app.database, Ages.of_days(None, 30), now()).jobs == [old.id]


class TestUpkeep:
    def test_the_service_prunes_by_itself_what_its_settings_say(self, app: Application, ended: Any) -> None:
        old, young = ended(OLD), ended(YOUNG)
        Upkeep(app.database, app.figures, Ages.of_days(None, None)).turn()
        assert records(app, old) == 8
        upkeep = Upkeep(app.database, app.figures, MONTH)
        upkeep.turn()
        assert (records(app, old), records(app, young)) == (0, 8)
        later = ended(OLD)
        upkeep.turn()
        assert records(app, later) == 8, "the next look is in an hour"


def environment(address: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "HOME": os.environ["HOME"], "LANG": "C.UTF-8", "LOCKSTEP_DATABASE_URL": address}


class TestCommand:
    def run(self, app: Application, *arguments: str) -> subprocess.CompletedProcess[str]:
        address = app.settings.database_url or ""
        argv = ["lockstep", "prune", "--home", str(app.settings.home), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment(address))

    def test_says_what_it_would_do_and_does_it(self, app: Application, ended: Any) -> None:
        old = ended(OLD)
        dry = self.run(app, "--records-older-than", "30", "--dry-run", "--json")
        assert dry.returncode == 0, dry.stderr
        assert json.loads(dry.stdout)["records"] == records(app, old) == 8
        done = self.run(app, "--records-older-than", "30", "--compact")
        assert done.returncode == 0, done.stderr
        assert "8 records in all" in done.stdout
        assert records(app, old) == 0

    def test_nothing_is_old_by_itself(self, app: Application) -> None:
        done = self.run(app)
        assert (done.returncode, "--records-older-than" in done.stderr) == (2, True)

    def test_a_database_that_is_not_there_is_not_made(self, app: Application, tmp_path: Any) -> None:
        missing = tmp_path / "none.db"
        done = self.run(app, "--jobs-older-than", "1", "--database", f"sqlite:///{missing}")
        assert (done.returncode, "lockstep serve" in done.stderr, missing.exists()) == (1, True, False)
