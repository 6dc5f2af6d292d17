"""After a restore from a backup: Slurm may have jobs that the database says it has not."""

from __future__ import annotations

import logging

from lockstep_service.boundary import Application
from lockstep_service.dispatch import worklists
from lockstep_service.jobs import repository
from lockstep_service.wire import now

_log = logging.getLogger(__name__)


def doubt_submits(app: Application) -> list[str]:
    """Has every job that is to be submitted looked for first, as if its submit's answer had been lost; their ids.

    A job that is held back, by its owner or for another's end, is not looked for, since it would have to be submitted
    for that; it is named in the log.
    """
    moment = now()
    with app.database.writing() as session:
        due = worklists.not_submitted(session, app.client.kind)
        for job_id in due:
            row = repository.lock(session, job_id)
            if row is not None:
                row.submit_started_at, row.submit_after, row.lost_since = moment, None, None
                row.reason = "The database was restored from a backup: it is looked for in Slurm before it is submitted"
                repository.changed(session, row)
        for job_id, name in worklists.held_back(session, app.client.kind):
            _log.warning(
                "job %s is held back; if that ended after the backup was made, Slurm may have it: squeue --name=%s.%s",
                job_id, name, job_id,
            )  # fmt: skip
    _log.info("%d jobs are looked for in Slurm before they are submitted", len(due))
    return due
