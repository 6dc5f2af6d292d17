"""Storing what became of a batch of jobs: one transaction for all of them, and the reasons that people read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.dispatch import answers
from lockstep_service.jobs import repository
from lockstep_service.jobs.phase import ENDED
from lockstep_service.tables import JobRow
from lockstep_service.wire import now

_log = logging.getLogger(__name__)

Change = Callable[[JobRow], None]
"""What an answer makes of a job's row."""


def store(app: Application, changes: Mapping[str, Change]) -> set[str]:
    """Makes all changes in one transaction, except to jobs that have ended in this moment; returns whose were made.

    Where a value cannot be stored, each on its own: one job must not keep the others from being known.
    """
    made: set[str] = set()
    if not changes:
        return made
    try:
        with app.database.writing() as session:
            rows = repository.lock_all(session, list(changes))
            for one, change in changes.items():
                row = rows.get(one)
                if row is not None and row.phase not in ENDED:
                    change(row)
                    repository.changed(session, row)
                    made.add(one)
    except UNSTORABLE as error:
        if len(changes) > 1:
            return set().union(*(store(app, {one: change}) for one, change in changes.items()))
        (only,) = changes
        _log.warning("what became of job %s cannot be stored: %s; it is tried again", only, error)
        store(app, {only: later(app, "It cannot be submitted yet: a value cannot be stored")})
        return set()
    return made


def later(app: Application, reason: str) -> Change:
    """It is tried again, after a pause that grows from try to try."""
    settings = app.settings

    def change(row: JobRow) -> None:
        answers.try_later(row, reason, settings, now())
        _log.warning("job %s: %s", row.id, reason)

    return change
