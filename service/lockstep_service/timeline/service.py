"""Giving a job's timeline out, page by page."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lockstep_service.errors import InvalidError
from lockstep_service.jobs.service import existing
from lockstep_service.timeline import repository
from lockstep_service.timeline.schemas import Timeline, TimelineEntry

_MOST_DIGITS = 18
"""Of an entry's id: what either database's integers have room for."""


def read(session: Session, job_id: str, limit: int, cursor: str | None) -> Timeline:
    """At most ``limit`` entries, from behind ``cursor`` on.

    ``NotFoundError`` when there is no such job, ``InvalidError`` when the cursor is none.
    """
    existing(session, job_id)
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MOST_DIGITS):
        raise InvalidError.at("cursor", f"is {cursor!r}, which no page gave as next_cursor", cursor)
    rows = repository.page(session, job_id, int(cursor or 0), limit + 1)
    items = [
        TimelineEntry.model_validate({name: getattr(row, name) for name in TimelineEntry.model_fields})
        for row in rows[:limit]
    ]
    return Timeline(items=items, next_cursor=str(items[-1].id) if len(rows) > limit else None)
