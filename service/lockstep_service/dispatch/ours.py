"""Whether a number that Slurm gave to a job of ours still is that job's: nothing is told Slurm before that is sure.

Numbers are given out again: after ``MaxJobId``, and from the first one on where slurmctld has lost its state. A job is
ours by number *and* name, in Slurm's queue; a record of it does not tell whose the number is by now.
"""

from __future__ import annotations

from datetime import timedelta

from lockstep_service.boundary import Application
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job.identity import slurm_name

Numbered = tuple[int, str]
"""A Slurm job's number and name."""
_LASTS = timedelta(seconds=30)
"""How long a look at the queue says whose a number is: none comes again so soon after its job was seen."""


def is_ours(app: Application, row: JobRow) -> bool:
    """Whether Slurm has the job in its queue under the number that it gave it; ``SlurmError`` where it cannot be asked.

    For the reconcile loop: by its last look at the queue, where that was after the dispatch, and not long ago. Else it
    looks, and that is the last look then. So most of what is told to Slurm takes no question of its own.
    """
    if row.slurm_job_id is None:
        return False
    watch, job = app.watch, numbered(row, row.slurm_job_id)
    before_it = watch.queue_at is None or row.dispatched_at is None or watch.queue_at < row.dispatched_at
    # One that was not there is told nothing, however long ago that was.
    long_ago = watch.queue_at is not None and now() - watch.queue_at > _LASTS
    if before_it or (long_ago and job in watch.queue):
        watch.queue_at, asked_at = None, now()
        watch.looks += 1
        watch.queue, watch.queue_at = in_queue(app), asked_at
    return job in watch.queue


def in_queue(app: Application) -> frozenset[Numbered]:
    """Every job in the queue now; ``SlurmError`` where it cannot be asked."""
    return frozenset((job.id, job.name) for job in app.client.queue())


def numbered(row: JobRow, slurm_id: int) -> Numbered:
    """The job, as Slurm has it under this number."""
    return slurm_id, slurm_name(row.name, row.id)
