"""Every question to the database about jobs, but for what dispatch asks at each turn (``dispatch.worklists``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, inspect, or_, select, tuple_, update
from sqlalchemy.orm import Session, defer, lazyload
from sqlalchemy.orm.attributes import set_committed_value

from lockstep_service.database import told
from lockstep_service.events.broadcaster import Change
from lockstep_service.jobs.phase import ENDED
from lockstep_service.tables import AttemptRow, JobRow
from lockstep_service.timeline import repository as timeline
from lockstep_service.wire import now


def get(session: Session, job_id: str) -> JobRow | None:
    """The job of this id."""
    return session.get(JobRow, job_id)


def lock(session: Session, job_id: str) -> JobRow | None:
    """The job, as it is now, for this transaction alone to change."""
    wanted = select(JobRow).where(JobRow.id == job_id).with_for_update().execution_options(populate_existing=True)
    return session.scalars(wanted).one_or_none()


def newest(session: Session, limit: int, after: JobRow | None) -> Sequence[JobRow]:
    """At most ``limit`` jobs, newest first, from behind ``after`` on."""
    wanted = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    if after is not None:
        wanted = wanted.where(tuple_(JobRow.created_at, JobRow.id) < (after.created_at, after.id))
    return session.scalars(wanted).all()


def by_idempotency_key(session: Session, key: str) -> JobRow | None:
    """The job that was submitted with this key."""
    return session.scalars(select(JobRow).where(JobRow.idempotency_key == key)).one_or_none()


def stored_with(session: Session, first: JobRow) -> list[tuple[str, str]]:
    """Ids and names of the jobs that came by one request with ``first``, which has the request's key, in their order.

    They were made in the same moment, have the request's digest, and ids that sort as they were asked for.
    """
    wanted = select(JobRow.id, JobRow.name).where(
        JobRow.created_at == first.created_at, JobRow.idempotency_digest == first.idempotency_digest
    )
    return [(job_id, name) for job_id, name in session.execute(wanted.order_by(JobRow.id))]


def token_hash(session: Session, job_id: str) -> str | None:
    """The hash of the job's token; None when there is no such job, or it has none."""
    return session.scalars(select(JobRow.token_hash).where(JobRow.id == job_id)).one_or_none()


def run_directory(session: Session, job_id: str) -> str | None:
    """The job's run directory."""
    return session.scalars(select(JobRow.run_dir).where(JobRow.id == job_id)).one_or_none()


def attempts(session: Session, job_id: str) -> frozenset[int]:
    """The numbers of the job's attempts that are known."""
    return frozenset(session.scalars(select(AttemptRow.number).where(AttemptRow.job_id == job_id)))


def changed_since(session: Session, since: datetime, limit: int) -> Sequence[str]:
    """The ids of jobs that changed after ``since``, oldest change first."""
    wanted = select(JobRow.id).where(JobRow.changed_at > since).order_by(JobRow.changed_at).limit(limit)
    return session.scalars(wanted).all()


@dataclass(frozen=True)
class Changed:
    """That a job changed, and whether there is something for dispatch to do about it."""

    id: str
    changed_at: datetime
    to_dispatch: bool


def changes(session: Session, since: datetime) -> Sequence[Changed]:
    """Jobs that changed after ``since``, oldest change first."""
    waits = JobRow.dispatched_at.is_(None) & JobRow.phase.not_in(ENDED)
    asked = (JobRow.cancel_requested_at.is_not(None) & JobRow.cancel_sent_at.is_(None)) | JobRow.wanted.is_not(None)
    wanted = select(JobRow.id, JobRow.changed_at, or_(waits, asked))
    rows = session.execute(wanted.where(JobRow.changed_at > since).order_by(JobRow.changed_at))
    return [Changed(job_id, changed_at, bool(due)) for job_id, changed_at, due in rows]


def ended_before(session: Session, moment: datetime) -> Sequence[str]:
    """The ids of jobs that are final and ended before ``moment``, oldest first, but for those that others wait for."""
    ended = func.coalesce(JobRow.ended_at, JobRow.ended_seen_at, JobRow.changed_at)
    followed = select(JobRow.follows).where(JobRow.final.is_(False), JobRow.follows.is_not(None))
    wanted = select(JobRow.id).where(JobRow.final, ended < moment, JobRow.id.not_in(followed)).order_by(ended)
    return session.scalars(wanted).all()


def remove(session: Session, job_id: str) -> bool:
    """Removes a final job with all that the database has of it; whether there was one."""
    row = lock(session, job_id)
    if row is None or not row.final:
        return False
    session.execute(delete(JobRow).where(JobRow.id == job_id))
    session.expunge(row)
    if row.idempotency_key is not None and (rest := stored_with(session, row)):
        # The key is known as long as any of the jobs that it stood for.
        heir = update(JobRow).where(JobRow.id == rest[0][0], JobRow.idempotency_key.is_(None))
        session.execute(
            heir.values(idempotency_key=row.idempotency_key), execution_options={"synchronize_session": False}
        )
    return True


_LOCKED: Final = (
    select(JobRow)
    .where(JobRow.id.in_(bindparam("ids", expanding=True)))
    .order_by(JobRow.id)
    .with_for_update(of=JobRow)
    .options(defer(JobRow.spec), defer(JobRow.script), lazyload(JobRow.attempts))
    .execution_options(populate_existing=True)
)


def lock_all(session: Session, ids: Sequence[str]) -> dict[str, JobRow]:
    """These jobs, as they are now, for this transaction alone to change. Specs and scripts are read when asked for.

    They are locked in the order of their ids, so that two transactions never wait for each other.
    """
    found: dict[str, JobRow] = {}
    for some in pieces(sorted(ids)):
        rows = session.scalars(_LOCKED, {"ids": some}).all()
        _set_attempts(session, rows)
        found |= {row.id: row for row in rows}
    return found


_ATTEMPTED: Final = select(AttemptRow.job_id).where(AttemptRow.job_id.in_(bindparam("ids", expanding=True))).distinct()
_ATTEMPTS: Final = (
    select(AttemptRow)
    .where(AttemptRow.job_id.in_(bindparam("ids", expanding=True)))
    .order_by(AttemptRow.job_id, AttemptRow.number)
    .execution_options(populate_existing=True)
)


def _set_attempts(session: Session, rows: Sequence[JobRow]) -> None:
    """Gives the rows, which are locked, their attempts.

    Not by the relationship's own loading, which makes as much of an empty answer as of a full one: a quarter of what it
    takes to lock jobs on their way to Slurm, none of which has an attempt.
    """
    having = session.connection().execute(_ATTEMPTED, {"ids": [row.id for row in rows]}).scalars().all()
    attempts: dict[str, list[AttemptRow]] = {row.id: [] for row in rows}
    if having:
        for attempt in session.scalars(_ATTEMPTS, {"ids": having}):
            attempts[attempt.job_id].append(attempt)
    for row in rows:
        set_committed_value(row, "attempts", attempts[row.id])


def phases(session: Session) -> dict[str, int]:
    """How many jobs there are in each phase; a phase without any is left out. Read from an index alone."""
    found: dict[str, int] = {}
    for phase, count in session.execute(select(JobRow.phase, func.count()).group_by(JobRow.final, JobRow.phase)):
        found[phase] = found.get(phase, 0) + count
    return found


def unanswered(session: Session) -> int:
    """How many jobs have a submit that is not answered: under way this moment, or its answer was lost."""
    wanted = select(func.count()).where(
        JobRow.final.is_(False), JobRow.phase == "accepted", JobRow.submit_started_at.is_not(None)
    )
    return session.scalars(wanted).one()


def observed(session: Session, ids: Sequence[str], moment: datetime) -> None:
    """Notes that Slurm told of these jobs, with nothing new."""
    for some in pieces(ids):
        session.execute(
            update(JobRow).where(JobRow.id.in_(some)).values(observed_at=moment),
            execution_options={"synchronize_session": False},
        )


def pieces(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many ids at a time as one statement takes."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def add(session: Session, row: JobRow) -> None:
    """Stores a job that was not known, with the beginning of its timeline; told once it is committed."""
    session.add(row)
    session.flush()
    timeline.begun(session, row)
    told(session, Change(row.id, "job"))


def insert_new(session: Session, rows: Sequence[JobRow]) -> None:
    """The same for many at once, none of which has an attempt; the rows stay outside of the session."""
    # Not as objects of the session, which does with each far more than it takes to store it.
    session.connection().execute(_INSERT, [_values_of(row) for row in rows])
    for row in rows:
        timeline.begun(session, row)
        told(session, Change(row.id, "job"))


_INSERT: Final = insert(JobRow)
_COLUMNS: Final = tuple(column.key for column in JobRow.__table__.columns)
_DEFAULTS: Final = {column.key: column.default.arg for column in JobRow.__table__.columns if column.default is not None}


def _values_of(row: JobRow) -> dict[str, Any]:
    """The values of all columns; those that were not given are what a new job has, in the row as well."""
    # What a row that was never stored was given is there; to ask it for sixty attributes takes four times as long.
    given = inspect(row).dict
    for key, default in _DEFAULTS.items():
        if given.get(key) is None:
            setattr(row, key, _default(default))
    return {key: given.get(key) for key in _COLUMNS}


def _default(found: Any) -> object:  # noqa: ANN401 - SQLAlchemy's: a value, or what makes one
    return found(None) if callable(found) else found


def changed(session: Session, row: JobRow) -> bool:
    """Whether this transaction changes the job or an attempt of it.

    If so, that is noted in the job and its timeline, and told once it is committed. To be called before it is flushed.
    """
    if not any(session.is_modified(one) for one in (row, *row.attempts)):
        return False
    row.changed_at = now()
    timeline.changed(session, row)
    told(session, Change(row.id, "job"))
    return True
