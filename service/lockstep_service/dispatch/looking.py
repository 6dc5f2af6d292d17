"""Looking for jobs of which a submit's answer was lost: one question for them all, and what is then asked of Slurm."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

from sqlalchemy.orm import Session, object_session

from lockstep_service.boundary import Application
from lockstep_service.dispatch import answers, lost, sending, worklists
from lockstep_service.dispatch.brakes import EVERYTHING
from lockstep_service.dispatch.ours import Numbered, in_queue, numbered
from lockstep_service.dispatch.parallel import in_parallel
from lockstep_service.dispatch.storing import Change, later, store
from lockstep_service.jobs.service import BEFORE_SUBMIT
from lockstep_service.tables import JobRow
from lockstep_service.timeline import repository as timeline
from lockstep_service.wire import now
from lockstep_slurm.client import orphans
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmJob,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
)
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.identity import slurm_name
from lockstep_slurm.job.rundir import read_claims, read_starts

_log = logging.getLogger(__name__)
_UNTOLD = 20.0
"""Seconds between two look-ups where Slurm does not tell its MessageTimeout: for its default."""


def look_for(app: Application, ids: Sequence[str]) -> tuple[int, list[str]]:
    """One look for all jobs of which an answer was lost, and what follows for each.

    Returns how many are in Slurm's hands since, and those of which a second copy is to be submitted, held.
    """
    with app.database.reading() as session:
        rows = worklists.outgoing(session, ids)
    if not rows:
        return 0, []
    names = {slurm_name(row.name, row.id): row.id for row in rows}
    if unseen := names.keys() - app.outbox.looked_for:
        orphans.end(unseen)
        app.outbox.looked_for |= unseen
    copies: dict[str, list[SlurmJob]] = {row.id: [] for row in rows}
    try:
        for job in app.client.find(*names):
            if job.name in names:
                copies[names[job.name]].append(job)
        moment, wait = now(), pause(app)
        steps = {row.id: lost.next_step(_known(row), copies[row.id], _started_as(row), moment, wait) for row in rows}
        # Those that only a record tells of may have lost their numbers to others.
        there = in_queue(app) if any(_tells(step) for step in steps.values()) else frozenset()
    except SlurmError as error:
        store(app, dict.fromkeys(names.values(), _failed(app, error)))
        return 0, []
    acting = [row for row in rows if not isinstance(steps[row.id], lost.SubmitHeld)]
    changes = in_parallel(lambda row: _act(app, row, steps[row.id], there), acting, app.settings.submit_parallel)
    store(app, {row.id: change for row, (change, _) in zip(acting, changes, strict=True)})
    again = [one for one, step in steps.items() if isinstance(step, lost.SubmitHeld)]
    return sum(dispatched for _, dispatched in changes), again


def pause(app: Application) -> timedelta:
    """Between two look-ups: twice as long as Slurm's parts wait for each other, as Slurm says, unless it is set.

    A queue of our own on this machine hides nothing.
    """
    if app.client.kind == "local":
        return timedelta(0)
    return timedelta(seconds=app.settings.lookup_seconds or _by_slurm(app))


def _by_slurm(app: Application) -> float:
    if app.outbox.lookup_seconds is None:
        try:
            told = app.client.message_timeout()
        except SlurmError as error:
            _log.info("Slurm's MessageTimeout is not known yet: %s", error)
            return _UNTOLD
        app.outbox.lookup_seconds = 2 * told if told is not None else _UNTOLD
    return app.outbox.lookup_seconds


def _failed(app: Application, error: LockstepError | OSError) -> Change:
    if not isinstance(error, SlurmUnavailableError):
        return later(app, f"It cannot be submitted yet: {error}")
    why = f"Slurm does not answer ({error}); it is tried again"
    sending.put_on(app, EVERYTHING, why)
    return later(app, why)


def _tells(step: lost.Step) -> bool:
    """Whether Slurm is told something of a copy by its number."""
    return isinstance(step, lost.Release) or (isinstance(step, lost.Adopt | lost.Withdraw) and bool(step.spare))


def _act(app: Application, row: JobRow, step: lost.Step, there: Collection[Numbered]) -> tuple[Change, bool]:
    """Does what the step asks of Slurm; what that changes, and whether the job is in Slurm's hands then.

    ``there``: what Slurm has in its queue; of anything else nothing is told it.
    """
    cancelled: list[int] = []
    try:
        if isinstance(step, lost.Adopt | lost.Release | lost.Withdraw):
            cancelled = _cancel(app, row, step.spare, there)
        if isinstance(step, lost.Release) and not _let_go(app, row, step.slurm_job_id, there):
            return answers.forget_copy, False
    except (LockstepError, OSError) as error:
        return _failed(app, error), False
    change = _change(app, step, kept_held=row.user_hold)
    return _telling(cancelled, change), isinstance(step, lost.Adopt | lost.Release)


def _change(app: Application, step: lost.Step, *, kept_held: bool) -> Change:
    """What the step changes, now that Slurm has done its part. ``kept_held``: as for ``_dispatch_released``."""
    match step:
        case lost.Adopt(slurm_id):
            change: Change = partial(answers.dispatch, slurm_id=slurm_id, moment=now())
        case lost.Release(slurm_id):
            change = partial(_dispatch_released, slurm_id=slurm_id, moment=now(), kept_held=kept_held)
        case lost.Withdraw():
            change = partial(_withdraw, wait=pause(app))
        case lost.Hold(slurm_id):
            change = partial(answers.keep_held, slurm_id=slurm_id)
        case lost.LookAgain(since):
            change = partial(answers.look_again, since=since, pause=pause(app))
        case lost.Wait(why):
            why = f"A submit's answer was lost, and whether it was started cannot be read ({why}); it is tried again"
            change = later(app, why)
        case lost.SubmitHeld():
            raise TypeError("held copies are submitted in batches, and not here")
    return change


def _dispatch_released(row: JobRow, slurm_id: int, moment: datetime, *, kept_held: bool) -> None:
    """The held copy is the job. ``kept_held``: it was not released, for its owner wanted it held at that moment."""
    answers.dispatch(row, slurm_id, moment)
    if kept_held and not row.user_hold:  # its owner has released it meanwhile, when there was nothing to pass on
        row.wanted = "release"


def _let_go(app: Application, row: JobRow, slurm_id: int, there: Collection[Numbered]) -> bool:
    """Releases the held copy, unless its owner wants it held; whether Slurm has it as the job's now."""
    if row.user_hold:
        return True
    if numbered(row, slurm_id) not in there:
        return False
    try:
        app.client.release(slurm_id)
    except SlurmRefusedError:
        # Released already, before this process was started again: then it is not pending any more.
        copies = app.client.find(slurm_name(row.name, row.id))
        if all(copy.state == "PENDING" for copy in copies if copy.id == slurm_id):
            raise
    except SlurmUnknownJobError:
        return False
    return True


def _cancel(app: Application, row: JobRow, copies: Sequence[int], there: Collection[Numbered]) -> list[int]:
    """Cancels these copies; returns those that Slurm had."""
    cancelled = []
    for slurm_id in copies:
        if numbered(row, slurm_id) not in there:
            _log.info("Slurm job %d was to be cancelled, and has left the queue", slurm_id)
            continue
        try:
            app.client.cancel(slurm_id)
            cancelled.append(slurm_id)
            _log.info("job %s: its further copy, Slurm job %d, was cancelled", row.id, slurm_id)
        except SlurmUnknownJobError:
            _log.info("Slurm job %d was to be cancelled, and Slurm does not know it any more", slurm_id)
    return cancelled


def _telling(cancelled: Sequence[int], change: Change) -> Change:
    """``change``, with what the row does not show: which copies of the job were cancelled."""

    def tell(row: JobRow) -> None:
        session = cast("Session", object_session(row))  # a change is made within the transaction that stores it
        for slurm_id in cancelled:
            timeline.note(session, row, "submit", f"A further copy of it, Slurm job {slurm_id}, was cancelled")
        change(row)

    return tell


def _withdraw(row: JobRow, wait: timedelta) -> None:
    """Cancelled while it was not known whether Slurm has it: it ends when no copy turned up for long enough."""
    why = "It is being cancelled: a submit's answer was lost, so a copy of it may still come"
    if answers.quiet_long_enough(row, why, now(), wait):
        answers.end(row, BEFORE_SUBMIT, now())


def _known(row: JobRow) -> lost.Lost:
    return lost.Lost(row.held, row.slurm_job_id, row.lost_since, cancelled=row.cancel_requested_at is not None)


def _started_as(row: JobRow) -> int | lost.Unread | None:
    """The Slurm job that the run directory says it was started as; None where it was not.

    Where it cannot be read that is no sign that it was not: a second copy would train beside the first.
    """
    run = Path(row.run_dir)
    try:
        claimed = [one.slurm_job_id for one in read_claims(run)]
        tried = [one.slurm_job_id for one in read_starts(run)]
    except FileNotFoundError as error:
        # None was ever made, as of what a restored database only takes for submitted; or a file has just gone.
        return lost.Unread(str(error)) if os.path.lexists(run) else None
    except (LockstepError, OSError) as error:
        return lost.Unread(str(error))
    known = [one for one in claimed + tried if isinstance(one, int) and one > 0]
    return known[0] if known else None
