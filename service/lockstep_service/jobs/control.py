"""What can be asked of a job after its submission: running it again, holding, releasing and requeueing it.

Holding, releasing and requeueing are wishes: what is stored here the dispatch loops pass on to Slurm. A job that Slurm
has not heard of is held by not being submitted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from lockstep_service.boundary import Application
from lockstep_service.errors import ConflictError, InvalidError
from lockstep_service.jobs import following, repository, service, view
from lockstep_service.jobs.following import Following
from lockstep_service.jobs.phase import ENDED
from lockstep_service.jobs.schemas import Job
from lockstep_service.problems import invalid
from lockstep_service.tables import JobRow
from lockstep_slurm.job.rundir import saved_steps
from lockstep_slurm.job.script import spec_of
from lockstep_slurm.job.spec import JobSpec

_STEPS_LISTED = 20
HELD = "It is held and not submitted; release it to let it start"


def rerun(
    app: Application,
    job_id: str,
    changes: Mapping[str, Any] | None,
    after: Following | None = None,
    from_checkpoint: str | None = None,
) -> tuple[JobSpec, service.Origin]:
    """What to submit to run a job again: exactly, or with ``changes``, a merge patch of its spec (RFC 7396).

    Exactly means by the very spec that its ranks had, with what the site filled in then; with changes, the site fills
    in anew. ``from_checkpoint`` (``last``, ``best``, or a step) is such a change: by it the new job goes on from that
    checkpoint of the old one. ``NotFoundError`` where there is no such job, ``InvalidError`` where the changed spec is
    none, or there is no such checkpoint.
    """
    # Not in the request's own transaction, which begins after the cluster was asked: SQLite has one writer.
    with app.database.reading() as session:
        row = service.existing(session, job_id)
    if from_checkpoint is not None:
        changes = merged(changes or {}, {"checkpoint": _goes_on_from(Path(row.run_dir), from_checkpoint)})
    if not changes:
        carried = None if row.by_hand else spec_of(row.script)
        effective = JobSpec.model_validate_json(carried) if carried is not None else None
        return JobSpec.model_validate_json(row.spec), service.Origin(after, rerun_of=row.id, effective=effective)
    try:
        spec = JobSpec.model_validate(merged(json.loads(row.spec), changes))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)) from None
    return spec, service.Origin(after, rerun_of=row.id)


def _goes_on_from(run: Path, which: str) -> dict[str, Any]:
    """The spec's keys for it. Which checkpoint is the last or the best one is found when the new job starts."""
    try:
        steps = saved_steps(run)
    except OSError as error:
        raise InvalidError.at(
            "from", f"the checkpoints of the job, in {run}, cannot be read: {error.strerror}", which
        ) from None
    if not steps:
        raise InvalidError.at("from", f"the job has no checkpoint in {run}; rerun it without `from`", which)
    step = int(which) if which.isdecimal() else None
    if step is not None and step not in steps:
        raise InvalidError.at("from", f"the job has no checkpoint of step {step}; it has {_listed(steps)}", which)
    return {"resume_from": str(run), "resume_step": which if step is None else step}


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) <= _STEPS_LISTED else f"{len(steps)} from {steps[0]} to {steps[-1]}"


def merged(document: Any, changes: Any) -> Any:  # noqa: ANN401 - JSON
    """``document`` with ``changes`` put over it, key by key; null removes a key (RFC 7396)."""
    if not isinstance(changes, Mapping):
        return changes
    found = dict(document) if isinstance(document, Mapping) else {}
    for name, value in changes.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def hold(app: Application, session: Session, job_id: str) -> Job:
    """Keeps a job from starting until it is released; ``ConflictError`` for one that has started or ended."""
    row = _alive(session, job_id, "hold")
    if row.phase == "running":
        raise ConflictError(
            f"Job {job_id} is running; a hold keeps a job from starting. Requeue it or cancel it to make it stop."
        )
    row.user_hold = True
    if _in_slurms_hands(row):
        row.wanted = "hold"
    else:
        row.reason = HELD
    return _asked(app, session, row)


def release(app: Application, session: Session, job_id: str) -> Job:
    """Lets a held job start; ``ConflictError`` for one that has started or ended, or that nothing here holds."""
    row = _alive(session, job_id, "release")
    if row.phase == "running":
        raise ConflictError(f"Job {job_id} is running; there is nothing to release.")
    # Slurm may hold it for a reason of its own, such as too many requeues: that can be released, too.
    if not row.user_hold and not view.held(row):
        raise ConflictError(f"Job {job_id} is not held; it starts when its turn comes.")
    if row.dispatched_at is not None:
        row.wanted = "release"
    else:
        row.wanted = None
        row.reason = _why_it_waits(session, row) if row.submit_started_at is None else row.reason
    row.user_hold = False
    return _asked(app, session, row)


def requeue(app: Application, session: Session, job_id: str) -> Job:
    """Ends a running job's attempt and puts it back into the queue; ``ConflictError`` for one that does not run."""
    row = _alive(session, job_id, "requeue")
    if row.phase != "running":
        raise ConflictError(f"Job {job_id} has not started ({row.phase}); there is nothing to put back into the queue.")
    row.wanted = "requeue"
    return _asked(app, session, row)


def moot(row: JobRow) -> bool:
    """Whether what is still to be passed on has no sense any more."""
    if row.phase in ENDED or row.cancel_requested_at is not None:
        return True
    # Back in the queue, whoever put it there, a job needs no requeue.
    return row.phase == "waiting" if row.wanted == "requeue" else row.phase == "running"


def _alive(session: Session, job_id: str, verb: str) -> JobRow:
    """The job, locked, if anything can still be asked of it."""
    service.existing(session, job_id)
    row = repository.lock(session, job_id)
    if row is None:
        raise service.not_found(job_id)
    if row.phase in ENDED:
        raise ConflictError(f"Job {job_id} has ended already ({row.phase}); rerun it to start it anew.")
    if row.by_hand:
        with_slurm = f": scontrol {verb} {row.slurm_job_id}" if row.slurm_job_id is not None else ""
        raise ConflictError(
            f"Job {job_id} was started by hand and only imported; {verb} it where it was started{with_slurm}."
        )
    if row.cancel_requested_at is not None:
        raise ConflictError(f"Job {job_id} is being cancelled; rerun it to start it anew.")
    if row.phase == "unknown":
        raise ConflictError(f"How job {job_id} stands is not known: {row.reason}")
    return row


def _in_slurms_hands(row: JobRow) -> bool:
    """Whether Slurm has it, or may have it: a submit's answer may still be on its way."""
    return row.dispatched_at is not None or row.submit_started_at is not None


def _why_it_waits(session: Session, row: JobRow) -> str | None:
    before = repository.get(session, row.follows) if row.follows is not None else None
    return following.waiting(before, any_end=row.follows_any) if before is not None else None


def _asked(app: Application, session: Session, row: JobRow) -> Job:
    repository.changed(session, row)
    service.wake_after(app, session)
    return view.full(row)
