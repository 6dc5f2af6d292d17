"""The reconcile loop's one cycle: one bulk question to Slurm for all live jobs, and what follows for each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.dispatch.observe import (
    RunFiles,
    apply_absence,
    apply_silence,
    apply_slurm,
    expected_name,
    read_files,
)
from lockstep_service.jobs import repository
from lockstep_service.jobs.phase import GIVEN_UP
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmJob,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
)
from lockstep_slurm.errors import LockstepError

_log = logging.getLogger(__name__)


def pass_on_cancels(app: Application) -> None:
    """Asks Slurm to end the jobs whose end was asked for."""
    with app.database.reading() as session:
        rows = repository.to_cancel(session, app.client.kind)
    for seen in rows:
        if seen.slurm_job_id is None:
            continue
        told: str | None = None
        gone = False
        try:
            app.client.cancel(seen.slurm_job_id)
        except SlurmUnavailableError as error:
            _log.warning("job %s could not be cancelled yet: %s", seen.id, error)
            return
        except SlurmUnknownJobError:
            _log.info("job %s was to be cancelled, and Slurm does not know it any more", seen.id)
            gone = True
        except SlurmRefusedError as error:
            told = f"Slurm did not cancel it: {error}"
        with app.database.writing() as session:
            row = repository.lock(session, seen.id)
            if row is not None:
                row.cancel_sent_at = now()
                row.reason = told or row.reason
                if gone and row.phase == "unknown":
                    # Slurm says in so many words that there is none, and its owner gives it up: it may be put away.
                    row.phase, row.reason = "ended badly", GIVEN_UP
                    row.ended_at = row.ended_seen_at = now()
                repository.changed(session, row)


def reconcile(app: Application) -> bool | None:
    """One cycle. None when no job is live, else whether anything changed."""
    client = app.client
    with app.database.reading() as session:
        rows = repository.to_reconcile(session, client.kind)
    if not rows:
        return None
    asked_at = now()
    found, silent = _ask(app, [row for row in rows if row.slurm_job_id is not None])
    changed, unchanged = _silence(app, silent, asked_at), []
    unasked = {row.id for row in silent}
    for row in rows:
        if row.id in unasked:
            continue
        files = _files(row)
        if files is None:
            continue
        try:
            news = _store(app, row.id, found.get(row.id), files, asked_at)
        except UNSTORABLE as error:  # one job must not keep the others from being looked at
            _log.warning("what is known of job %s cannot be stored: %s; it is tried again", row.id, error)
            continue
        if news:
            changed = True
        else:
            unchanged.append(row.id)
    if unchanged:
        with app.database.writing() as session:
            repository.observed(session, unchanged, asked_at)
    return changed


def _ask(app: Application, rows: Sequence[JobRow]) -> tuple[dict[str, SlurmJob], list[JobRow]]:
    """What Slurm says of these jobs, by job id: from its queue, else its records; one it has no word of is left out.

    And those of which it could not be asked: all, or, where only the records are out of reach, those not in the queue.
    """
    found: dict[str, SlurmJob] = {}
    missing = list(rows)
    wanted = {(row.slurm_job_id, expected_name(row)): row.id for row in rows}
    try:
        if rows:
            found = {wanted[job.id, job.name]: job for job in app.client.queue() if (job.id, job.name) in wanted}
            missing = [row for row in rows if row.id not in found]
        if missing:
            records = app.client.finished([row.slurm_job_id for row in missing if row.slurm_job_id is not None])
            # Oldest first, so that the newest record of a job stays.
            found |= {wanted[job.id, job.name]: job for job in records if (job.id, job.name) in wanted}
    except SlurmError as error:
        _log.warning("Slurm could not be asked about %d jobs: %s", len(missing), error)
        return found, missing
    return found, []


def _files(row: JobRow) -> RunFiles | None:
    try:
        return read_files(Path(row.run_dir))
    except (LockstepError, OSError) as error:
        _log.warning("the run directory of job %s cannot be read: %s; it is tried again", row.id, error)
        return None


def _store(app: Application, job_id: str, job: SlurmJob | None, files: RunFiles, when: datetime) -> bool:
    grace = timedelta(seconds=app.settings.exit_grace_seconds)
    with app.database.writing() as session:
        row = repository.lock(session, job_id)
        if row is None:
            return False
        before = row.observed_at
        if job is not None:
            apply_slurm(row, job, files, when, grace)
        else:
            apply_absence(row, files, when, grace)
        # That Slurm told the same again is noted for all jobs at once, and is no news to anyone.
        after, row.observed_at = row.observed_at, before
        if changed := repository.changed(session, row):
            row.observed_at = after
        return changed


def _silence(app: Application, rows: Sequence[JobRow], when: datetime) -> bool:
    changed = False
    for seen in rows:
        if seen.stale_since is None:
            with app.database.writing() as session:
                row = repository.lock(session, seen.id)
                if row is not None:
                    apply_silence(row, when)
                    changed |= repository.changed(session, row)
    return changed
