"""New jobs that come together: one transaction for all of them, and one that cannot be stored keeps no other out."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError, OperationalError

from lockstep_service.boundary import Application
from lockstep_service.jobs import intake, repository
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job.identity import new_job_id

from .conftest import Json, until


def row(key: str | None = None) -> JobRow:
    moment = now()
    return JobRow(
        id=new_job_id(), name="new", spec="{}", script="", run_dir="/nowhere", client="local", nodes_requested=1,
        ranks=1, idempotency_key=key, created_at=moment, changed_at=moment, attempts=[],
    )  # fmt: skip


def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], threading.Event]:
    """How many jobs each transaction stores, none of them before the gate is open."""
    batches: list[int] = []
    gate = threading.Event()
    insert_new = repository.insert_new

    def slowly(session: Any, rows: list[JobRow]) -> None:
        batches.append(len(rows))
        gate.wait(30)
        insert_new(session, rows)

    monkeypatch.setattr(repository, "insert_new", slowly)
    return batches, gate


def test_those_that_wait_go_in_together_and_a_refused_one_alone_stays_out(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, gate = held_up(monkeypatch)
    rows = [row(), row("twice"), row("twice"), row(), row()]
    failed: list[str] = []

    def add(one: JobRow) -> None:
        try:
            app.intake.add(one)
        except IntegrityError:
            failed.append(one.id)

    threads = [threading.Thread(target=add, args=(one,)) for one in rows]
    threads[0].start()
    until(lambda: batches == [1])
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(app.intake._waiting) == 4)
    gate.set()
    for thread in threads:
        thread.join()
    assert batches == [1, 4, 1, 1, 1, 1]
    assert len(failed) == 1
    assert failed[0] in {rows[1].id, rows[2].id}
    with app.database.reading() as session:
        stored = {one.id for one in repository.newest(session, 10, None)}
    assert stored == {one.id for one in rows} - set(failed)


def test_those_that_came_together_are_waited_for_to_come_together_again(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_GATHER_SECONDS", 300)  # it is to end because all are here
    batches, gate = held_up(monkeypatch)
    threads = [threading.Thread(target=app.intake.add, args=(row(),)) for _ in range(3)]
    threads[0].start()
    until(lambda: batches == [1])
    threads[1].start()
    until(lambda: len(app.intake._waiting) == 1)
    gate.set()
    threads[0].join()
    threads[2].start()
    for thread in threads[1:]:
        thread.join(60)
    assert batches == [1, 2]


def test_one_that_comes_alone_again_waits_for_nobody(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_GATHER_SECONDS", 300)
    for _ in range(3):
        thread = threading.Thread(target=app.intake.add, args=(row(),), daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()


def test_a_database_that_is_away_is_asked_once_for_all_that_wait(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    gate = threading.Event()

    def away(_session: Any, rows: list[JobRow]) -> None:
        tries.append(len(rows))
        gate.wait(30)
        raise OperationalError("INSERT", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(repository, "insert_new", away)
    failed: list[str] = []

    def add(one: JobRow) -> None:
        try:
            app.intake.add(one)
        except OperationalError:
            failed.append(one.id)

    rows = [row() for _ in range(4)]
    threads = [threading.Thread(target=add, args=(one,)) for one in rows]
    threads[0].start()
    until(lambda: tries == [1])
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(app.intake._waiting) == 3)
    gate.set()
    for thread in threads:
        thread.join()
    assert tries == [1, 3]
    assert sorted(failed) == sorted(one.id for one in rows)


def test_a_job_is_answered_as_it_is_stored(api: TestClient, app: Application, spec: Json) -> None:
    answered = api.post("/api/v1/jobs", json=spec).raise_for_status().json()
    assert api.get(f"/api/v1/jobs/{answered['id']}").json() == answered
    made = row()
    app.intake.add(made)
    with app.database.reading() as session:
        stored = repository.get(session, made.id)
        assert stored is not None
        for column in JobRow.__table__.columns:
            assert getattr(stored, column.key) == getattr(made, column.key), column.key
