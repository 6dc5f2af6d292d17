"""What a timeline is derived from: the columns of a job's row that tell of something that happened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.orm.attributes import get_history

from lockstep_service.tables import Base, JobRow


class AttemptFacts(NamedTuple):
    """An attempt, as its row has it."""

    number: int
    ranks: int = 1
    nodes: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    message: str | None = None


# A named tuple: thousands of these are made when Slurm has news of thousands of jobs, and it is made the fastest.
class Facts(NamedTuple):
    """A job at one moment, as its row has it; the names are those of ``JobRow``."""

    created_at: datetime
    changed_at: datetime
    """When the service learnt of this."""
    phase: str
    client: str = "command"
    by_hand: bool = False
    ranks: int = 1
    rerun_of: str | None = None
    follows: str | None = None
    follows_any: bool = False
    dispatched_at: datetime | None = None
    user_hold: bool = False
    wanted: str | None = None
    cancel_requested_at: datetime | None = None
    cancel_sent_at: datetime | None = None
    slurm_job_id: int | None = None
    state: str | None = None
    reason: str | None = None
    slurm_reason: str | None = None
    slurm_nodes: tuple[str, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stale_since: datetime | None = None
    verdicts: Mapping[str, Any] = MappingProxyType({})
    attempts: tuple[AttemptFacts, ...] = ()


_LISTS = frozenset({"slurm_nodes", "nodes"})
_JOB = tuple(name for name in Facts._fields if name != "attempts")
_ATTEMPT = AttemptFacts._fields


def after(row: JobRow) -> Facts:
    """The row as it is now."""
    return Facts(**_now(row, _JOB), attempts=tuple(AttemptFacts(**_now(attempt, _ATTEMPT)) for attempt in row.attempts))


def before(row: JobRow, after: Facts) -> Facts:
    """The row as it was before what has been changed and not yet sent to the database; ``after``: as it is now."""
    return after._replace(
        **_old(row, _JOB),
        attempts=tuple(
            facts._replace(**_old(attempt, _ATTEMPT))
            for attempt, facts in zip(row.attempts, after.attempts, strict=True)
            if inspect(attempt).has_identity
        ),
    )


def _now(row: Base, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _told(name, getattr(row, name)) for name in names}


def _old(row: Base, names: tuple[str, ...]) -> dict[str, Any]:
    """What has been changed, as it was; what was never read before it was set is None."""
    found = {}
    for name in set(names).difference(inspect(row).unmodified):
        history = get_history(row, name)
        found[name] = _told(name, next((values[0] for values in (history.deleted, history.unchanged) if values), None))
    return found


def _told(name: str, value: object) -> object:
    return tuple(value) if isinstance(value, list) else () if value is None and name in _LISTS else value
