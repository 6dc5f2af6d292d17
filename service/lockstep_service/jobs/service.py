"""What can be done with a job: submit, look, list, cancel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lockstep_service.boundary import Application
from lockstep_service.clusters import service as clusters
from lockstep_service.database import at_end
from lockstep_service.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from lockstep_service.jobs import following, repository, view
from lockstep_service.jobs.following import Following
from lockstep_service.jobs.phase import ENDED
from lockstep_service.jobs.schemas import Job, JobPage
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job import library
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.site import rules


@dataclass(frozen=True)
class Origin:
    """What a new job comes from, beyond its spec."""

    after: Following | None = None
    rerun_of: str | None = None
    effective: JobSpec | None = None
    """The spec with what the site filled in when it ran before; None: the site fills it in now."""

    def digest(self, text: str) -> str:
        """Of a whole submission of the spec ``text``: the same key has to come with the same one."""
        whole = text
        if self.after is not None or self.rerun_of is not None:
            whole += repr((self.after, self.rerun_of))
        return hashlib.sha256(whole.encode()).hexdigest()


NO_ORIGIN = Origin()


@dataclass(frozen=True)
class Wanted:
    """The spec of a new job."""

    said: JobSpec
    text: str
    """That as JSON, as it is stored."""
    effective: JobSpec
    """With what the site filled in."""


def store(app: Application, spec: JobSpec, key: str | None, origin: Origin = NO_ORIGIN) -> Job:
    """Stores a job for ``spec``, or answers again what ``key`` was answered before.

    What is stored is the spec as it was said; the script has what the site filled in. ``InvalidError`` when the site
    does not allow it, when the cluster, as far as is known, can never run it, when ``key`` came with another spec, or
    when the job that it is to come after is none or has ended badly. ``InProgressError`` while another request has
    the key.
    """
    with app.keys_in_progress.claimed(key):
        return _store(app, spec, key, origin)


def _store(app: Application, spec: JobSpec, key: str | None, origin: Origin) -> Job:
    text = spec.model_dump_json(exclude_none=True)
    digest = origin.digest(text)
    if key is not None and (known := known_by(app, key)) is not None:
        return _again(known, digest)
    wanted = Wanted(spec, text, allowed(app, spec, origin))
    reason = waits(app, origin.after)
    row = new_row(app, wanted, origin, script_site(app))
    row.idempotency_key, row.idempotency_digest = key, digest if key is not None else None
    row.reason = reason
    try:
        app.intake.add(row)
    except IntegrityError:
        # The same key, in the same moment, to another process: that one was first.
        if key is None or (known := known_by(app, key)) is None:
            raise
        return _again(known, digest)
    app.wake_submit()
    return view.of(row, spec, wanted.effective)


def allowed(app: Application, spec: JobSpec, origin: Origin = NO_ORIGIN) -> JobSpec:
    """The spec with what the site filled in.

    ``InvalidError`` where the site does not allow it, or the cluster, as far as is known, can never run it.
    """
    effective = origin.effective or rules.fill(spec, app.site)
    if refused := rules.refusals(effective, app.site):
        raise InvalidError.at_all(refused)
    clusters.check(app, effective)
    return effective


def new_row(app: Application, wanted: Wanted, origin: Origin, site: ScriptSite, job_id: str | None = None) -> JobRow:
    """The row of a job that is not stored yet; ``job_id``: by default a new one."""
    job_id = job_id or new_job_id()
    moment = now()
    return JobRow(
        id=job_id,
        name=wanted.said.name,
        spec=wanted.text,
        script=render(wanted.effective, site),
        run_dir=str(app.runs / job_id),
        client=app.client.kind,
        nodes_requested=wanted.said.resources.nodes,
        ranks=wanted.said.ranks,
        rerun_of=origin.rerun_of,
        follows=origin.after.job_id if origin.after is not None else None,
        follows_any=origin.after is not None and origin.after.any_end,
        created_at=moment,
        changed_at=moment,
        attempts=[],
    )


def known_by(app: Application, key: str) -> JobRow | None:
    """The job that was submitted with this key, or the first of those that were."""
    with app.database.reading() as session:
        return repository.by_idempotency_key(session, key)


def waits(app: Application, after: Following | None) -> str | None:
    """Why a new job waits for the one that it comes after; None where it need not."""
    if after is None:
        return None
    with app.database.reading() as session:
        return following.waiting(following.checked(session, after), any_end=after.any_end)


def script_site(app: Application) -> ScriptSite:
    """What a script has to know of this place; ``UnavailableError`` where the ranks' library cannot be provided."""
    # Each time, and not only at the start: it is one look at a file, and who cleans up there may have removed it.
    try:
        runs, provided = str(app.runs), str(library.provide(app.runs))
    except library.LibraryError as error:
        raise UnavailableError(str(error)) from None
    return rules.script_site(app.site, python=app.python, runs=runs, library=provided)


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
        raise not_found(job_id)
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
    wake_after(app, session)
    return view.full(row)


BEFORE_SUBMIT = "It was cancelled before it was submitted to Slurm"


def existing(session: Session, job_id: str) -> JobRow:
    """The job's row; ``NotFoundError`` when there is none."""
    row = repository.get(session, job_id)
    if row is None:
        raise not_found(job_id)
    return row


def not_found(job_id: str) -> NotFoundError:
    """The error of a job that there is not."""
    return NotFoundError(f"There is no job {job_id!r}; GET /api/v1/jobs lists them.")


def wake_after(app: Application, session: Session) -> None:
    """Wakes dispatch once this transaction is committed: before, it would find nothing."""
    at_end(session, lambda committed: app.wake() if committed else None)
