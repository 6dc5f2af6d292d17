"""The reconcile loop's one cycle: one bulk question to Slurm for all live jobs, and what follows for each.

Three answers are told apart: Slurm has the job, or a record of it; Slurm has no word of it; Slurm could not be asked.
Only the first can end a job by itself. What a cycle costs depends on what is new, not on how many jobs there are:
``watched`` remembers what the rows are by.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nsmallest
from operator import attrgetter
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.dispatch import worklists
from lockstep_service.dispatch.down import Down
from lockstep_service.dispatch.observe import (
    RunFiles,
    apply_absence,
    apply_silence,
    apply_slurm,
    close_last,
    is_another,
    nodes_it_had,
    read_files,
)
from lockstep_service.dispatch.ours import Numbered, is_ours
from lockstep_service.dispatch.watched import Watched, folders
from lockstep_service.jobs import repository
from lockstep_service.jobs.phase import ENDED, GIVEN_UP, outcome
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import (
    SlurmClient,
    SlurmError,
    SlurmJob,
    SlurmRefusedError,
    SlurmUnknownJobError,
)
from lockstep_slurm.errors import LockstepError

_log = logging.getLogger(__name__)
_TOGETHER = 200
"""Jobs in one transaction: SQLite has one writer, and requests wait for it."""
_MOST = 1000
"""Jobs with news that one cycle takes; the next, which comes soon, takes the rest. So every cycle is short."""
_OBSERVED = 500
"""Of how many jobs without news a cycle notes that they were observed: those first whose last note is oldest."""


def pass_on_cancels(app: Application) -> None:
    """Asks Slurm to end the jobs whose end was asked for; those that are unknown, and not there, are put away."""
    with app.database.reading() as session:
        rows = worklists.to_cancel(session, app.client.kind)
    for place, seen in enumerate(rows):
        if seen.slurm_job_id is None:
            continue
        try:
            there, told = is_ours(app, seen), None
            if there:
                there, told = _cancel(app.client, seen.slurm_job_id)
        except SlurmError as error:
            if (said := app.watch.cancelling.failed(str(error), time.monotonic())) is not None:
                _log.warning("%d jobs could not be cancelled yet: %s", len(rows) - place, said)
            return
        if not there and seen.phase != "unknown":
            continue  # it has just left the queue: once its end is known, or is not to be known, there is more to do
        with app.database.writing() as session:
            row = repository.lock(session, seen.id)
            if row is not None and there:
                row.cancel_sent_at = now()
                row.reason = told or row.reason
            elif row is not None and row.phase == "unknown":
                _log.info("job %s was to be cancelled, and Slurm does not have it any more", row.id)
                # Nobody can say how it ended, and its owner gives it up.
                row.phase, row.reason = "ended badly", GIVEN_UP + _now_called(app, seen.slurm_job_id)
                row.ended_at = row.ended_seen_at = now()
                close_last(row, row.ended_at)
            if row is not None:
                repository.changed(session, row)
    app.watch.cancelling.went_well(time.monotonic())  # which each job's timeline tells


def _now_called(app: Application, slurm_id: int) -> str:
    """What there is to say where the number has another name: it is another job, or somebody has renamed this one."""
    names = [name for number, name in app.watch.queue if number == slurm_id]
    return f". Slurm's job {slurm_id} is called {names[0]!r}; if this is it, renamed, end it there" if names else ""


def _cancel(client: SlurmClient, slurm_id: int) -> tuple[bool, str | None]:
    """Whether Slurm has the job, and its words where it did not cancel it; ``SlurmUnavailableError`` as it comes."""
    try:
        client.cancel(slurm_id)
    except SlurmUnknownJobError:
        return False, None
    except SlurmRefusedError as error:
        return True, f"Slurm did not cancel it: {error}"
    return True, None


@dataclass(frozen=True)
class _Answer:
    """What Slurm said of the jobs that it was asked for."""

    told: dict[str, SlurmJob | None] = field(default_factory=dict)
    """By job id; None where neither queue nor records have a word of it."""
    silent: tuple[Watched, ...] = ()
    """Those of which it could not be asked."""
    queue: Collection[Numbered] | None = None
    """What its queue had, where that was told."""
    error: SlurmError | None = None
    """Why it could not be asked."""
    whole: bool = False
    """Whether it was asked about all jobs, and answered: of those that are long missing it is not asked every time."""


@dataclass(frozen=True)
class _Look:
    """A job whose row may have to change: what Slurm tells of it (None: nothing) and what its files do."""

    job: Watched
    told: SlurmJob | None
    files: RunFiles
    failed: tuple[str, ...]
    """Those of its nodes that are down, where one of them may have ended it."""


def reconcile(app: Application) -> bool | None:
    """One cycle. None when no job is live, else whether anything moved: a phase, a state, an attempt."""
    with app.database.reading() as session:
        app.watch.refresh(session)
    ours = worklists.same_scheduler(app.client.kind)
    jobs = [job for job in app.watch.jobs.values() if job.client in ours]
    if not jobs:
        app.watch.asking.went_well(time.monotonic())  # as nothing is asked
        return None
    asked_at = now()
    began = time.monotonic()
    answer = _ask(app.client, jobs, app.settings.exit_grace_seconds)
    _tell(app, answer)
    if answer.queue is not None or answer.silent:
        app.watch.queue, app.watch.queue_at = answer.queue or (), None if answer.queue is None else asked_at
    # A silence is no sign of a dear question.
    app.watch.asking_seconds = 0.0 if answer.silent else time.monotonic() - began
    moved = _silence(app, answer.silent, asked_at)
    due = [job for job in jobs if job.id in answer.told and job.is_due(answer.told[job.id])]
    # Those that only wait come last: what has ended, or begun, is what people look for.
    due.sort(key=lambda job: job.waits(answer.told[job.id]))
    looks, without = _looks(app, due[:_MOST], answer)
    for start in range(0, len(looks), _TOGETHER):
        moved |= _take(app, looks[start : start + _TOGETHER], asked_at, without)
    left = {job.id for job in due}
    _note(app, [*without, *(job for job in jobs if job.id in answer.told and job.id not in left)], asked_at)
    return moved or len(due) > _MOST


def _ask(client: SlurmClient, jobs: Sequence[Watched], grace: float) -> _Answer:
    """What Slurm says of these jobs: its queue, else its records.

    Where only the records are out of reach, those that are in the queue are known all the same. ``grace``: seconds that
    a record may take to tell of an end; until then one that tells of none is believed, and no longer.
    """
    told: dict[str, SlurmJob | None] = {job.id: None for job in jobs if job.slurm_job_id is None}
    missing = asked = [job for job in jobs if job.slurm_job_id is not None]
    seen: Collection[Numbered] | None = None
    try:
        if asked:
            queue = {(job.id, job.name): job for job in client.queue()}
            seen, missing = queue.keys(), []
            for job in asked:
                if (found := queue.get((job.slurm_job_id or 0, job.name))) is not None:
                    told[job.id], job.missed_at = found, None
                else:
                    missing.append(job)
        at = time.monotonic()
        due = []
        for job in missing:
            if job.ask_records(at):
                due.append(job)
            else:
                told[job.id] = job.told
        # Records that answer of one job answer: the others have their turn later, and some have none for ever.
        whole, missing = bool(asked) and (bool(due) or not missing), due
        if due:
            records = client.finished([job.slurm_job_id for job in due if job.slurm_job_id is not None])
            # Oldest first, so that the newest record of a job stays.
            known = {(record.id, record.name): record for record in records}
            for job in due:
                record = known.get((job.slurm_job_id or 0, job.name))
                told[job.id] = None if record is not None and _is_left_over(record, job.missing(at), grace) else record
    except SlurmError as error:
        return _Answer(told, tuple(missing), seen, error)
    return _Answer(told, queue=seen, whole=whole)


def _is_left_over(record: SlurmJob, missing: float, grace: float) -> bool:
    """Whether a record is of a job that Slurm has lost: it tells of no end, and the queue has long not had the job.

    slurmdbd calls it a runaway job; a completion file ends with the requeue before. Slurm will say no more of it.
    """
    found = outcome(record.state, record.flags, None, None, grace_over=True)
    return found.phase in {"waiting", "running"} and missing >= grace


def _tell(app: Application, answer: _Answer) -> None:
    """What the log has of an answer: that there is none, and that there is one again."""
    trouble, at = app.watch.asking, time.monotonic()
    if answer.error is not None:
        if (said := trouble.failed(str(answer.error), at)) is not None:
            _log.warning("Slurm could not be asked about %d jobs: %s", len(answer.silent), said)
    elif answer.whole and (lasted := trouble.went_well(at)) is not None:
        _log.info("Slurm tells of its jobs again, after %s", lasted)


def _looks(app: Application, due: Sequence[Watched], answer: _Answer) -> tuple[list[_Look], list[Watched]]:
    """Those of the jobs that may have news, with their files read; and those that have none after all."""
    looks, quiet = [], []
    down = Down(app)
    for job in due:
        told = answer.told[job.id]
        try:
            before = folders(job.run)
            files = read_files(Path(job.run))
        except (LockstepError, OSError) as error:
            job.settled = False
            _log.warning("the run directory of job %s cannot be read: %s; it is tried again", job.id, error)
            continue
        job.has_read(before)
        if told is not None and job.by_hand and is_another(told, files):
            told = None
        if not job.is_news(told, hash(files)):
            quiet.append(job)
            continue
        failed = down.among(nodes_it_had(told, files), fresh=told.state == "NODE_FAIL") if told is not None else ()
        looks.append(_Look(job, told, files, failed))
    return looks, quiet


def _take(app: Application, looks: Sequence[_Look], when: datetime, quiet: list[Watched]) -> bool:
    """Brings the rows up to what was found; whether anything moved. Those without news are added to ``quiet``."""
    try:
        return _store(app, looks, when, quiet)
    except (IntegrityError, *UNSTORABLE) as error:
        if len(looks) > 1:  # one job must not keep the others from being looked at
            # Every one of them: any() alone would leave the rest out behind the first that moved.
            moved = [_take(app, [look], when, quiet) for look in looks]
            return any(moved)
        looks[0].job.settled = False
        _log.warning("what is known of job %s cannot be stored: %s; it is tried again", looks[0].job.id, error)
        return False


def _store(app: Application, looks: Sequence[_Look], when: datetime, quiet: list[Watched]) -> bool:
    grace = timedelta(seconds=app.settings.exit_grace_seconds)
    moved = False
    stored: list[tuple[_Look, JobRow, bool]] = []
    with app.database.writing() as session:
        rows = repository.lock_all(session, [look.job.id for look in looks])
        for look in looks:
            row = rows.get(look.job.id)
            # Somebody may have changed it since: the next cycle finds it as it is then.
            if row is None or row.phase in ENDED or row.slurm_job_id != look.job.slurm_job_id:
                continue
            before, observed = _shown(row), row.observed_at
            if look.told is not None:
                apply_slurm(row, look.told, look.files, when, grace, failed_nodes=look.failed)
            else:
                apply_absence(row, look.files, when, grace)
            # That Slurm told the same again is noted for all jobs at once, and is no news to anyone.
            after, row.observed_at = row.observed_at, observed
            if news := repository.changed(session, row):
                row.observed_at = after
            moved |= _shown(row) != before
            stored.append((look, row, news))
    # Only now: what could not be committed is not known.
    for look, row, news in stored:
        _remember(look, row)
        if not news:
            quiet.append(look.job)
    return moved


def _shown(row: JobRow) -> tuple[object, ...]:
    """What is looked at more often while it moves; an estimate, or a place in the queue, is not."""
    return row.phase, row.state, row.flags, row.slurm_nodes, [attempt.ended_at for attempt in row.attempts]


def _remember(look: _Look, row: JobRow) -> None:
    job = look.job
    job.mark, job.stale, job.attempts = row.changed_at, row.stale_since is not None, len(row.attempts)
    job.told, job.files, job.run = look.told, hash(look.files), row.run_dir
    if row.observed_at is not None:
        job.observed = row.observed_at.timestamp()
    if look.told is not None:
        # An end waits for its exit record; of a job that was put back into the queue the nodes may come back.
        job.settled = row.ended_seen_at is None and not nodes_it_had(look.told, look.files)
    else:
        job.settled = row.phase == "unknown" and not look.files.alive


def _silence(app: Application, jobs: Sequence[Watched], when: datetime) -> bool:
    """Slurm could not be asked about these: they keep what was known, and show since when it is stale."""
    fresh = [job for job in jobs if not job.stale]
    for start in range(0, len(fresh), _TOGETHER):
        some = fresh[start : start + _TOGETHER]
        with app.database.writing() as session:
            rows = repository.lock_all(session, [job.id for job in some])
            for row in rows.values():
                apply_silence(row, when)
                repository.changed(session, row)
        for job in some:
            if (stored := rows.get(job.id)) is not None:
                job.mark, job.stale = stored.changed_at, True
    return bool(fresh)


def _note(app: Application, quiet: Sequence[Watched], when: datetime) -> None:
    """Notes of the jobs without news that Slurm told of them."""
    oldest = nsmallest(_OBSERVED, quiet, key=attrgetter("observed"))
    if not oldest:
        return
    with app.database.writing() as session:
        repository.observed(session, [job.id for job in oldest], when)
    for job in oldest:
        job.observed = when.timestamp()
