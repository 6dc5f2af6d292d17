"""What can be done with a job: submit, look, list, cancel."""

from __future__ import annotations

import hashlib

from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lockstep_service.boundary import Application
from lockstep_service.clusters import service as clusters
from lockstep_service.database import told
from lockstep_service.errors import ConflictError, InvalidError, NotFoundError
from lockstep_service.events.broadcaster import Change
from lockstep_service.jobs import repository, view
from lockstep_service.jobs.phase import ENDED
from lockstep_service.jobs.schemas import Job, JobPage
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec


def submit(app: Application, session: Session, spec: JobSpec, key: str | None) -> Job:
    """Stores a job for ``spec``, or answers again what ``key`` was answered before.

    ``InvalidError`` when the cluster, as far as is known, can never run it, or when ``key`` came with another spec.
    """
    text = spec.model_dump_json(exclude_none=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if key is not None:
        with app.database.reading() as before:
            known = repository.by_idempotency_key(before, key)
        if known is not None:
            return _again(known, digest)
    # Before the transaction begins: Slurm may take its time, and SQLite has one writer.
    clusters.check(app, spec)
    job_id = new_job_id()
    moment = now()
    row = JobRow(
        id=job_id,
        name=spec.name,
        spec=text,
        script=render(spec, ScriptSite(python=app.settings.python, runs=str(app.settings.runs_root))),
        run_dir=str(app.settings.runs_root / job_id),
        client=app.client.kind,
        nodes_requested=spec.resources.nodes,
        ranks=spec.ranks,
        idempotency_key=key,
        idempotency_digest=digest if key is not None else None,
        created_at=moment,
        changed_at=moment,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        # The same key, in the same moment: the other request was first.
        if key is None or (known := repository.by_idempotency_key(session, key)) is None:
            raise
        return _again(known, digest)
    told(session, Change(job_id, "job"))
    _wake_after(app, session)
    return view.full(row)


def _again(known: JobRow, digest: str) -> Job:
    if known.idempotency_digest != digest:
        raise InvalidError.at(
            "Idempotency-Key", f"was used for job {known.id} with another spec; take a new key for a new job"
        )
    return view.full(known)


def show(session: Session, job_id: str) -> Job:
    """The job; ``NotFoundError`` when there is none."""
    return view.full(existing(session, job_id))


def script(session: Session, job_id: str) -> str:
    """The job's batch script; ``NotFoundError`` when there is no such job."""
    return existing(session, job_id).script


def page(session: Session, limit: int, cursor: str | None) -> JobPage:
    """Jobs, newest first, from behind ``cursor`` on; ``InvalidError`` when that is none."""
    after = None
    if cursor is not None and (after := repository.get(session, cursor)) is None:
        raise InvalidError.at("cursor", f"is {cursor!r}, which no page gave as next_cursor", cursor)
    rows = repository.newest(session, limit + 1, after)
    shown = rows[:limit]
    return JobPage(items=[view.summary(row) for row in shown], next_cursor=shown[-1].id if len(rows) > limit else None)


def cancel(app: Application, session: Session, job_id: str) -> Job:
    """Asks for the job's end; ``ConflictError`` when it has ended already."""
    row = repository.lock(session, job_id)
    if row is None:
        raise _not_found(job_id)
    if row.phase in ENDED:
        raise ConflictError(f"Job {job_id} has ended already ({row.phase}); there is nothing to cancel.")
    if row.by_hand:
        raise ConflictError(
            f"Job {job_id} was started by hand and only imported; end it where it was started"
            + (f": scancel {row.slurm_job_id}." if row.slurm_job_id is not None else ".")
        )
    moment = now()
    row.cancel_requested_at = row.cancel_requested_at or moment
    row.cancel_sent_at = None  # asked for again, it is passed on again: Slurm may have refused it
    if row.dispatched_at is None and row.submit_started_at is None:
        row.phase, row.reason, row.ended_at, row.ended_seen_at = "ended badly", BEFORE_SUBMIT, moment, moment
    repository.changed(session, row)
    _wake_after(app, session)
    return view.full(row)


BEFORE_SUBMIT = "It was cancelled before it was submitted to Slurm"


def existing(session: Session, job_id: str) -> JobRow:
    """The job's row; ``NotFoundError`` when there is none."""
    row = repository.get(session, job_id)
    if row is None:
        raise _not_found(job_id)
    return row


def _not_found(job_id: str) -> NotFoundError:
    return NotFoundError(f"There is no job {job_id!r}; GET /api/v1/jobs lists them.")


def _wake_after(app: Application, session: Session) -> None:
    """Wakes dispatch once this transaction is committed: before, it would find nothing."""
    event.listen(session, "after_commit", lambda _session: app.wake(), once=True)
