"""Every question to the database about jobs and their attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.orm import Session

from lockstep_service.database import told
from lockstep_service.events.broadcaster import Change
from lockstep_service.jobs.phase import ENDED
from lockstep_service.tables import JobRow
from lockstep_service.wire import now

_Statement = TypeVar("_Statement", bound=Select[Any])


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


def token_hash(session: Session, job_id: str) -> str | None:
    """The hash of the job's token; None when there is no such job, or it has none."""
    return session.scalars(select(JobRow.token_hash).where(JobRow.id == job_id)).one_or_none()


def run_directory(session: Session, job_id: str) -> str | None:
    """The job's run directory."""
    return session.scalars(select(JobRow.run_dir).where(JobRow.id == job_id)).one_or_none()


def changed_since(session: Session, since: datetime, limit: int) -> Sequence[str]:
    """The ids of jobs that changed after ``since``, oldest change first."""
    wanted = select(JobRow.id).where(JobRow.changed_at > since).order_by(JobRow.changed_at).limit(limit)
    return session.scalars(wanted).all()


def to_submit(session: Session, client: str, moment: datetime) -> Sequence[str]:
    """The ids of jobs that have not been handed to Slurm, and whose turn it is at ``moment``, oldest first."""
    wanted = _outbox(select(JobRow.id), client)
    due = wanted.where((JobRow.submit_after.is_(None)) | (JobRow.submit_after <= moment))
    return session.scalars(due.order_by(JobRow.created_at, JobRow.id)).all()


def next_submit(session: Session, client: str) -> datetime | None:
    """When the next of the jobs that wait for another try is to be tried."""
    return session.scalars(_outbox(select(func.min(JobRow.submit_after)), client)).one()


def _outbox(wanted: _Statement, client: str) -> _Statement:
    return wanted.where(
        JobRow.dispatched_at.is_(None),
        JobRow.by_hand.is_(False),
        JobRow.client == client,
        JobRow.phase.not_in(ENDED),
    )


def to_cancel(session: Session, client: str) -> Sequence[JobRow]:
    """Jobs in Slurm's hands whose end was asked for and not yet passed on."""
    wanted = select(JobRow).where(
        JobRow.cancel_requested_at.is_not(None),
        JobRow.cancel_sent_at.is_(None),
        JobRow.dispatched_at.is_not(None),
        JobRow.client == client,
        JobRow.final.is_(False),
    )
    return session.scalars(wanted).all()


def to_reconcile(session: Session, client: str) -> Sequence[JobRow]:
    """Jobs in Slurm's hands, or running by hand, whose end has not been seen."""
    wanted = select(JobRow).where(
        JobRow.final.is_(False),
        JobRow.phase.not_in(ENDED),
        JobRow.dispatched_at.is_not(None) | JobRow.by_hand,
        JobRow.client == client,
    )
    return session.scalars(wanted).all()


def unfinished(session: Session) -> Sequence[JobRow]:
    """Jobs that may still leave records: everything that is not final."""
    return session.scalars(select(JobRow).where(JobRow.final.is_(False)).order_by(JobRow.created_at)).all()


def observed(session: Session, ids: Sequence[str], moment: datetime) -> None:
    """Notes that Slurm told of these jobs, with nothing new."""
    for start in range(0, len(ids), 500):
        session.execute(update(JobRow).where(JobRow.id.in_(ids[start : start + 500])).values(observed_at=moment))


def changed(session: Session, row: JobRow) -> bool:
    """Whether this transaction changes the job; if so, that is noted in it, and told once it is committed."""
    if not session.is_modified(row):
        return False
    row.changed_at = now()
    told(session, Change(row.id, "job"))
    return True
