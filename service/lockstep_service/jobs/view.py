"""From a row to what the API says of it."""

from __future__ import annotations

from typing import Any

from lockstep_service.jobs.schemas import Attempt, Job, JobSummary, Last
from lockstep_service.tables import AttemptRow, JobRow
from lockstep_slurm.job.spec import JobSpec


def summary(row: JobRow) -> JobSummary:
    """The job without its spec."""
    return JobSummary.model_validate(_fields(row))


def full(row: JobRow) -> Job:
    """The job with its spec."""
    return Job.model_validate(_fields(row) | {"spec": JobSpec.model_validate_json(row.spec)})


def last(row: JobRow) -> Last:
    """The job's newest figures."""
    return Last.model_validate(dict.fromkeys(Last.model_fields) | row.last)


def _fields(row: JobRow) -> dict[str, Any]:
    taken = {name: getattr(row, name) for name in JobSummary.model_fields if name not in {"nodes", "attempts", "last"}}
    return taken | {
        "nodes": (row.attempts[-1].nodes if row.attempts else None) or row.slurm_nodes,
        "attempts": [_attempt(attempt) for attempt in row.attempts],
        "last": last(row),
    }


def _attempt(row: AttemptRow) -> Attempt:
    return Attempt.model_validate({name: getattr(row, name) for name in Attempt.model_fields})
