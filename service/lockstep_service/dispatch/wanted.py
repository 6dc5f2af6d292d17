"""What owners want of their jobs, passed on to Slurm: hold, release, requeue; and the end of what waits in vain."""

from __future__ import annotations

import logging

from lockstep_service.boundary import Application
from lockstep_service.dispatch import worklists
from lockstep_service.dispatch.ours import is_ours
from lockstep_service.jobs import repository
from lockstep_service.jobs.control import moot
from lockstep_service.jobs.following import in_vain
from lockstep_service.jobs.phase import ENDED
from lockstep_service.tables import JobRow
from lockstep_service.timeline import repository as timeline
from lockstep_service.timeline.entry import scheduler
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmRateLimitedError,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
)

_log = logging.getLogger(__name__)


def pass_on(app: Application) -> int:
    """Tells Slurm what is wanted of its jobs; returns of how many it has been told."""
    with app.database.reading() as session:
        rows = worklists.to_pass_on(session, app.client.kind)
    done = 0
    for seen in rows:
        if seen.slurm_job_id is None:
            continue
        if moot(seen):
            _settled(app, seen)
        elif seen.stale_since is not None:
            continue  # Slurm is away; it is told when it is known to answer
        else:
            try:
                told = _tell(app, seen, seen.slurm_job_id) if is_ours(app, seen) else _not_there(seen)
            except SlurmError as error:
                _log.warning("job %s: %s could not be passed on yet: %s", seen.id, seen.wanted, error)
                return done
            _settled(app, seen, told, asked=True)
            done += 1
    return done


def _tell(app: Application, row: JobRow, slurm_id: int) -> str | None:
    """Passes one wish on; what to say where it was not granted."""
    client = app.client
    passes_on = {"hold": client.hold, "release": client.release, "requeue": client.requeue}
    try:
        passes_on[row.wanted or ""](slurm_id)
    except SlurmUnknownJobError:
        return _not_there(row)
    except SlurmRefusedError as error:
        return f"Slurm did not {row.wanted} it: {error}"
    except SlurmUnavailableError as error:
        if row.wanted != "requeue" or isinstance(error, SlurmRateLimitedError):
            raise
        # It may have happened, and a second one would end the next attempt as well.
        return f"Slurm did not answer when it was asked to requeue it ({error}), and may have done so or not"
    return None


def _not_there(row: JobRow) -> str:
    return f"It was not passed on to Slurm ({row.wanted}): Slurm does not know the job any more"


def _settled(app: Application, seen: JobRow, told: str | None = None, *, asked: bool = False) -> None:
    with app.database.writing() as session:
        row = repository.lock(session, seen.id)
        if row is None or row.wanted != seen.wanted:
            return  # something else is wanted by now
        row.wanted = None
        if told is not None:
            row.reason = told
            row.user_hold = row.user_hold and seen.wanted != "hold"
            _log.warning("job %s: %s", row.id, told)
        elif asked:
            row.slurm_reason = None  # what it waited for before; Slurm says the next at the next look
            timeline.note(session, row, "asked", f"{scheduler(row.client)} was asked to {seen.wanted} it")
        repository.changed(session, row)


def end_in_vain(app: Application) -> int:
    """Ends the jobs that come after one that ended badly, and those that come after them; returns how many."""
    ended = 0
    while True:
        with app.database.reading() as session:
            found = worklists.in_vain(session)
        before = ended
        for job_id, after, name, reason in found:
            ended += _end(app, job_id, in_vain(after, name, reason))
        if ended == before:
            return ended


def _end(app: Application, job_id: str, reason: str) -> bool:
    with app.database.writing() as session:
        row = repository.lock(session, job_id)
        if row is None or row.phase in ENDED or row.submit_started_at is not None:
            return False
        moment = now()
        row.phase, row.reason, row.ended_at, row.ended_seen_at = "ended badly", reason, moment, moment
        row.user_hold, row.wanted = False, None
        return repository.changed(session, row)
