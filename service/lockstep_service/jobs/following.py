"""Jobs that come after another: which one, how it has to end, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from lockstep_service.errors import InvalidError
from lockstep_service.jobs import repository
from lockstep_service.jobs.phase import ENDED
from lockstep_service.tables import JobRow


@dataclass(frozen=True)
class Following:
    """The job that a new one comes after."""

    job_id: str
    any_end: bool = False
    """Whether any end of it will do; else it has to end well."""


def checked(session: Session, wanted: Following) -> JobRow:
    """The job that is to end first; ``InvalidError`` where there is none, or where it ended badly and may not have."""
    before = repository.get(session, wanted.job_id)
    if before is None:
        raise InvalidError.at(
            "after", f"is {wanted.job_id!r}, and there is no such job; GET /api/v1/jobs lists them", wanted.job_id
        )
    if before.phase == "ended badly" and not wanted.any_end:
        raise InvalidError.at(
            "after",
            f"is job {before.id} ({before.name}), which ended badly already; give after_any=true to start it whatever "
            "that one's end was",
            wanted.job_id,
        )
    return before


def waiting(before: JobRow, *, any_end: bool) -> str | None:
    """Why a job waits that comes after ``before``; None where it need not wait any more."""
    if before.phase in ENDED:
        return None
    return f"It waits for job {before.id} ({before.name}) to end{'' if any_end else ' well'}"


def in_vain(job_id: str, name: str | None, reason: str | None) -> str:
    """Why a job will never start: the one before it, of this ``name`` and ``reason``, ended badly (None: is gone)."""
    if name is None:
        return f"It was to start after job {job_id} ended well, and that job is not kept any more"
    told = f": {reason}" if reason else ""
    return f"It was to start after job {job_id} ({name}) ended well, and that one ended badly{told}"
