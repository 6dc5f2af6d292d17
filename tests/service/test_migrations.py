"""The migrations with data in the database: down to each version and up again, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from sqlalchemy import inspect, text

from lockstep_service.boundary import Application
from lockstep_service.database import Database, alembic_config
from lockstep_service.dispatch.submit import submit_due
from lockstep_service.jobs import repository
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.settings import Settings
from lockstep_service.tables import Base
from lockstep_service.wire import now
from lockstep_slurm.client import LocalClient

from .conftest import HandMadeRun

Json = dict[str, Any]
VERSIONS = ("0001", "0002", "0003", "0004", "0005")
"""Those to go down to: all but the newest."""
BEFORE_TIMELINES = ("0001", "0002")


@pytest.fixture
def settings(database_url: str, lockstep_home: Any) -> Settings:
    """The ranks' interpreter is none, so that a job ends at once."""
    return Settings(home=lockstep_home, database_url=database_url, client="local", dispatch=False, python="/bin/false")


@pytest.fixture
def ids(app: Application, api: TestClient, spec: Json, made_by_hand: Callable[[], HandMadeRun]) -> list[str]:
    """Jobs at every station: one that ended with records of two ranks, one cancelled, one in the queue, one stored."""
    hand = made_by_hand()
    hand.claim()
    hand.spool(*(hand.line(rank, step=step, loss=step / 7) for step in range(1, 30) for rank in range(2)))
    hand.end()
    found = [str(api.post("/api/v1/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status().json()["id"])]
    for name in ("queued", "cancelled", "stored"):
        answer = api.post("/api/v1/jobs", json=spec | {"name": name}, headers={"Idempotency-Key": name})
        found.append(str(answer.raise_for_status().json()["id"]))
        if name == "queued":
            assert submit_due(app) == 1
        if name == "cancelled":
            api.post(f"/api/v1/jobs/{found[-1]}/cancel").raise_for_status()
    with app.database.writing() as session:
        row = repository.lock(session, found[0])
        assert row is not None
        row.shipped_at = now()
    queue = LocalClient(app.settings.home / "local")
    for job in queue.queue():
        queue.cancel(job.id)
    return found


def told(api: TestClient, app: Application, ids: list[str], *parts: str) -> list[Any]:
    """What the API says of each job, none of it from what is kept in memory."""
    app.figures = FiguresCache()
    return [api.get(f"/api/v1/jobs/{job}{part}").raise_for_status().text for job in ids for part in parts]


def test_these_are_all_versions_but_the_newest(app: Application) -> None:
    script = ScriptDirectory.from_config(alembic_config(app.database.engine))
    assert [one.revision for one in script.walk_revisions()][:0:-1] == list(VERSIONS)
    assert len(script.get_heads()) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_down_and_up_again_loses_no_job_and_no_record(
    app: Application, api: TestClient, ids: list[str], version: str
) -> None:
    parts = ["", "/script", "/metrics", *([] if version in BEFORE_TIMELINES else ["/timeline"])]
    before = told(api, app, ids, *parts)
    listed = api.get("/api/v1/jobs").json()
    config = alembic_config(app.database.engine)
    command.downgrade(config, version)
    with app.database.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == version
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == len(ids)
        assert connection.execute(text("SELECT count(*) FROM attempts")).scalar_one() == 1
    command.upgrade(config, "head")
    assert told(api, app, ids, *parts) == before
    assert api.get("/api/v1/jobs").json() == listed
    with app.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        heard = connection.execute(text("SELECT id FROM jobs WHERE heard_at = shipped_at")).scalars().all()
        assert heard == ids[:1]


def test_what_a_key_was_answered_is_answered_after_it_all(
    app: Application, api: TestClient, spec: Json, ids: list[str]
) -> None:
    config = alembic_config(app.database.engine)
    command.downgrade(config, VERSIONS[0])
    command.upgrade(config, "head")
    again = api.post("/api/v1/jobs", json=spec | {"name": "stored"}, headers={"Idempotency-Key": "stored"})
    assert again.raise_for_status().json()["id"] == ids[-1]
    other = api.post("/api/v1/jobs", json=spec | {"name": "other"}, headers={"Idempotency-Key": "stored"})
    assert other.status_code == 422


def test_all_the_way_down_leaves_nothing_behind(app: Application, api: TestClient, ids: list[str]) -> None:
    assert ids
    command.downgrade(alembic_config(app.database.engine), "base")
    assert inspect(app.database.engine).get_table_names() == ["alembic_version"]


def test_a_migration_that_fails_changes_nothing(
    app: Application, api: TestClient, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = alembic_config(app.database.engine)
    command.downgrade(config, VERSIONS[0])
    with app.database.engine.connect() as connection:
        tables = sorted(inspect(connection).get_table_names())
    with app.database.engine.begin() as connection:
        # In the way of one of the later migrations, behind those that go well.
        connection.execute(text("CREATE TABLE timeline (id INTEGER)"))
    with pytest.raises(Exception, match="timeline"):
        Database(app.settings.url).upgrade()
    with app.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE timeline"))
        assert sorted(inspect(connection).get_table_names()) == tables
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == VERSIONS[0]
    command.upgrade(config, "head")
    assert len(told(api, app, ids, "")) == len(ids)
