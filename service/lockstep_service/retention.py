"""How long things are kept: the records of jobs that have ended, and the jobs themselves. Run directories stay."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import inspect

from lockstep_service.database import Database, DatabaseError, parsed
from lockstep_service.jobs import repository as jobs
from lockstep_service.metrics import repository
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.tables import ChunkRow
from lockstep_service.wire import now

_EVERY_SECONDS = 3600.0
_AT_ONCE = 200
"""Jobs in one turn of the service's own upkeep, which other work waits for."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ages:
    """From which age after its end on; None: for ever."""

    records: timedelta | None
    jobs: timedelta | None

    @classmethod
    def of_days(cls, records: float | None, jobs: float | None) -> Ages:
        """From days."""
        return cls(*(None if days is None else timedelta(days=days) for days in (records, jobs)))


@dataclass(frozen=True)
class Plan:
    """What is too old: the ids of jobs that go, and of jobs whose records go."""

    jobs: Sequence[str]
    records: Sequence[str]


@dataclass
class Pruned:
    """What went, or with a dry run would go."""

    jobs: int = 0
    jobs_without_records: int = 0
    """Jobs that stay, with their curves, and whose records went."""
    records: int = 0
    bytes: int = 0
    """Of records, as the database keeps them."""


def plan(database: Database, ages: Ages, moment: datetime) -> Plan:
    """What is too old at ``moment``."""
    with database.reading() as session:
        gone = [] if ages.jobs is None else jobs.ended_before(session, moment - ages.jobs)
        old = [] if ages.records is None else jobs.ended_before(session, moment - ages.records)
        leaving = set(gone)
        return Plan(gone, [one for one in repository.with_records(session, old) if one not in leaving])


def prune(
    database: Database,
    wanted: Plan,
    *,
    figures: FiguresCache | None = None,
    dry_run: bool,
    done: Callable[[], None] = lambda: None,
) -> Pruned:
    """Removes it, a transaction a job; ``done`` is called after each. With ``dry_run`` only counts.

    A job's curves are stored before its records go, so they are as they were.
    """
    pruned = Pruned()
    kept = FiguresCache() if figures is None else figures
    for job_id in wanted.jobs:
        with (database.reading if dry_run else database.writing)() as session:
            count, size = repository.extent(session, job_id)
            if dry_run or jobs.remove(session, job_id):
                pruned.jobs, pruned.records, pruned.bytes = pruned.jobs + 1, pruned.records + count, pruned.bytes + size
        done()
    for job_id in wanted.records:
        with (database.reading if dry_run else database.writing)() as session:
            count, size = repository.extent(session, job_id)
            if not dry_run:
                row = jobs.lock(session, job_id)
                if row is None:
                    continue
                found = kept.to_change(session, row)
                if not repository.is_kept(session, job_id, row.revision):
                    repository.keep(session, job_id, found)
                repository.forget(session, job_id, row.revision)
            pruned.jobs_without_records += 1
            pruned.records, pruned.bytes = pruned.records + count, pruned.bytes + size
        kept.tidy()
        done()
    return pruned


def open_existing(url: str) -> Database:
    """The database of a service that has run; ``DatabaseError`` where there is none, or it is of another version."""
    address = parsed(url)
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        raise DatabaseError(
            f"There is no database {address.database} yet; the first start of `lockstep serve` makes it."
        )
    database = Database(url)
    if not inspect(database.engine).has_table(ChunkRow.__tablename__):
        database.close()
        raise DatabaseError("The database is of another version of Lockstep; start this one's `lockstep serve` once.")
    return database


def compact(database: Database) -> None:
    """Gives the room of what was removed back to the disk; PostgreSQL does that by itself."""
    if database.engine.dialect.name == "sqlite":
        connection = database.engine.raw_connection()
        try:
            connection.cursor().execute("VACUUM")
        finally:
            connection.close()


@dataclass
class Upkeep:
    """The service's own pruning, once an hour, as its settings say."""

    database: Database
    figures: FiguresCache
    ages: Ages
    _next: float = 0.0

    def turn(self) -> None:
        """Prunes what is due, a part of it at a time."""
        if time.monotonic() < self._next or (self.ages.records is None and self.ages.jobs is None):
            return
        found = plan(self.database, self.ages, now())
        part = Plan(found.jobs[:_AT_ONCE], found.records[:_AT_ONCE])
        pruned = prune(self.database, part, figures=self.figures, dry_run=False)
        if pruned.jobs or pruned.jobs_without_records:
            _log.info(
                "%d jobs were removed, and the records of %d more, which are older than the settings keep them",
                pruned.jobs, pruned.jobs_without_records,
            )  # fmt: skip
        if part == found:
            self._next = time.monotonic() + _EVERY_SECONDS
