"""From a row to what the API says of it."""

from __future__ import annotations

from typing import Any, get_args

from lockstep_service.jobs.schemas import Attempt, Job, JobSummary, Last, Verdicts
from lockstep_service.placement.schemas import Result, worst
from lockstep_service.tables import AttemptRow, JobRow
from lockstep_slurm.job.script import spec_of
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.site import rules

# What is not simply a column.
_MADE = frozenset({"nodes", "attempts", "last", "verdict", "verdicts", "after", "after_any", "held"})


def summary(row: JobRow) -> JobSummary:
    """The job without its spec."""
    return JobSummary.model_validate(_fields(row))


def full(row: JobRow) -> Job:
    """The job with its spec, as its ranks follow it."""
    said = JobSpec.model_validate_json(row.spec)
    # A script that was run by hand may have been changed by that hand; what its ranks followed is its spec.json.
    carried = None if row.by_hand else spec_of(row.script)
    return of(row, said, said if carried is None else JobSpec.model_validate_json(carried))


def of(row: JobRow, said: JobSpec, spec: JobSpec) -> Job:
    """The job whose spec was ``said``, and is ``spec`` with what the site filled in."""
    ranks = row.attempts[-1].ranks if row.attempts else row.ranks
    batch = None if spec.training.script is not None else spec.training.batch_size * ranks
    more = {"spec": spec, "filled": rules.filled(said, spec), "global_batch": batch}
    return Job.model_validate(_fields(row) | more)


def last(row: JobRow) -> Last:
    """The job's newest figures."""
    return Last.model_validate(dict.fromkeys(Last.model_fields) | row.last)


def ranks_of(row: JobRow, attempt: int) -> int:
    """How many ranks the attempt has; as many as the job asked for before it was seen to be claimed."""
    return next((known.ranks for known in row.attempts if known.number == attempt), row.ranks)


def verdicts(row: JobRow) -> Verdicts | None:
    """What the ranks of the newest attempt said of their threads; None before that attempt told anything."""
    attempt = row.verdicts.get("attempt", 0)
    if attempt == 0 or any(known.number > attempt for known in row.attempts):
        return None
    return Verdicts(
        **{name.replace(" ", "_"): row.verdicts["results"].get(name, 0) for name in get_args(Result)},
        ranks=ranks_of(row, attempt),
        revision=row.verdicts["revision"],
    )


def _verdict(told: Verdicts) -> Result | None:
    heard: list[Result] = [name for name in get_args(Result) if getattr(told, name.replace(" ", "_"))]
    return worst(heard) if told.as_planned + told.degraded + told.deviates >= told.ranks else None


def _fields(row: JobRow) -> dict[str, Any]:
    taken = {name: getattr(row, name) for name in JobSummary.model_fields if name not in _MADE}
    told = verdicts(row)
    return taken | {
        "nodes": (row.attempts[-1].nodes if row.attempts else None) or row.slurm_nodes,
        "attempts": [_attempt(attempt) for attempt in row.attempts],
        "last": last(row),
        "verdicts": told,
        "verdict": None if told is None else _verdict(told),
        "after": row.follows,
        "after_any": row.follows_any,
        "held": held(row),
    }


def held(row: JobRow) -> bool:
    """Whether a job that has not started is kept from it: once Slurm has told why it waits, that is what counts."""
    if row.phase not in ("accepted", "waiting"):
        return False
    if row.wanted is not None or row.slurm_reason is None:
        return row.user_hold
    # JobHeldUser, JobHeldAdmin, JobHoldMaxRequeue, "launch failed requeued held" (slurm_protocol_defs.c, 22.05).
    return row.slurm_reason.startswith("JobHold") or "held" in row.slurm_reason.lower()


def _attempt(row: AttemptRow) -> Attempt:
    return Attempt.model_validate({name: getattr(row, name) for name in Attempt.model_fields})
