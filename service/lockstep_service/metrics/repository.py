"""Every question to the database about records and spools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from lockstep_service.metrics.record import Record
from lockstep_service.tables import RankRow, RecordRow, SpoolRow

_BATCH = 1000


def add(session: Session, job_id: str, revision: int, records: Sequence[Record]) -> int:
    """Stores those records that are not stored yet; returns how many were new. The caller holds the job's row."""
    kind = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    # What is returned is what was new: the row counts of a batch are not told alike by the two databases.
    statement = kind.insert(RecordRow).on_conflict_do_nothing().returning(RecordRow.seq)
    rows = [
        {
            "job_id": job_id,
            "attempt": record.attempt,
            "rank": record.rank,
            "seq": record.seq,
            "revision": revision,
            "time": record.time,
            "kind": record.kind,
            "step": record.step,
            "values": record.values,
        }
        for record in records
    ]
    return sum(len(session.scalars(statement, rows[i : i + _BATCH]).all()) for i in range(0, len(rows), _BATCH))


def advance(session: Session, job_id: str, records: Sequence[Record]) -> dict[tuple[int, int], int]:
    """Per (attempt, rank) of ``records``, which are stored: the highest seq up to which none is missing."""
    steps: dict[tuple[int, int], int | None] = {}
    for record in records:
        before = steps.setdefault((record.attempt, record.rank), None)
        if record.kind == "step" and record.step is not None:
            steps[record.attempt, record.rank] = record.step if before is None else max(before, record.step)
    found: dict[tuple[int, int], int] = {}
    for (attempt, rank), step in sorted(steps.items()):
        row = session.get(RankRow, (job_id, attempt, rank))
        if row is None:
            row = RankRow(job_id=job_id, attempt=attempt, rank=rank, contiguous=0)
            session.add(row)
        if step is not None:
            row.step = step if row.step is None else max(row.step, step)
        row.contiguous = _contiguous(session, row)
        found[attempt, rank] = row.contiguous
    return found


def _contiguous(session: Session, row: RankRow) -> int:
    """The highest seq up to which none is missing, looked for from where it was."""
    wanted = (
        select(RecordRow.seq)
        .where(
            RecordRow.job_id == row.job_id,
            RecordRow.attempt == row.attempt,
            RecordRow.rank == row.rank,
            RecordRow.seq > row.contiguous,
        )
        .order_by(RecordRow.seq)
    )
    reached = row.contiguous
    for seq in session.scalars(wanted):
        if seq != reached + 1:
            break
        reached = seq
    return reached


def between(session: Session, job_id: str, later_than: int, up_to: int) -> Iterator[Record]:
    """The records that came with the revisions behind ``later_than``, up to and with ``up_to``."""
    wanted = (
        select(
            RecordRow.attempt,
            RecordRow.rank,
            RecordRow.seq,
            RecordRow.time,
            RecordRow.kind,
            RecordRow.step,
            RecordRow.values,
        )
        .where(RecordRow.job_id == job_id, RecordRow.revision > later_than, RecordRow.revision <= up_to)
        .order_by(RecordRow.revision)
        .execution_options(yield_per=_BATCH)
    )
    for row in session.execute(wanted):
        yield Record(*row)


def newest_attempt(session: Session, job_id: str) -> int | None:
    """The newest attempt that has records."""
    return session.scalars(select(func.max(RankRow.attempt)).where(RankRow.job_id == job_id)).one()


def newest_whole_step(session: Session, job_id: str, attempt: int) -> list[tuple[float, int, dict[str, Any]]]:
    """(time, step, values) of each rank at the newest step that all ranks that report steps have reported."""
    of_ranks = (RankRow.job_id == job_id, RankRow.attempt == attempt, RankRow.step.is_not(None))
    slowest, ranks = session.execute(select(func.min(RankRow.step), func.count()).where(*of_ranks)).one()
    if slowest is None:
        return []
    of_steps = (RecordRow.job_id == job_id, RecordRow.kind == "step", RecordRow.attempt == attempt)
    # Ranks report the same steps, so as a rule it is the slowest rank's newest; where it is not, it is below.
    step = session.scalars(
        select(RecordRow.step)
        .where(*of_steps, RecordRow.step <= slowest)
        .group_by(RecordRow.step)
        .having(func.count(RecordRow.rank.distinct()) >= ranks)
        .order_by(RecordRow.step.desc())
        .limit(1)
    ).one_or_none()
    wanted = (
        select(RecordRow.time, RecordRow.step, RecordRow.values)
        .where(*of_steps, RecordRow.step == step)
        .order_by(RecordRow.rank, RecordRow.seq)
    )
    return [(time, at, json.loads(values)) for time, at, values in session.execute(wanted) if at is not None]


def recent_steps(session: Session, job_id: str, attempt: int, step: int, count: int) -> list[list[dict[str, Any]]]:
    """Per rank, the values of its newest ``count`` step records up to and with ``step``."""
    wanted = (
        select(RecordRow.rank, RecordRow.values)
        .where(
            RecordRow.job_id == job_id,
            RecordRow.kind == "step",
            RecordRow.attempt == attempt,
            RecordRow.step <= step,
            RecordRow.step > step - count,
        )
        .order_by(RecordRow.rank, RecordRow.step, RecordRow.seq)
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for rank, values in session.execute(wanted):
        found.setdefault(rank, []).append(json.loads(values))
    return list(found.values())


def newest_of_kind(session: Session, job_id: str, attempt: int, kind: str) -> tuple[float, dict[str, Any]] | None:
    """(time, values) of the newest record of this kind."""
    wanted = (
        select(RecordRow.time, RecordRow.values)
        .where(RecordRow.job_id == job_id, RecordRow.kind == kind, RecordRow.attempt == attempt)
        .order_by(RecordRow.step.desc().nulls_last(), RecordRow.time.desc())
        .limit(1)
    )
    row = session.execute(wanted).one_or_none()
    return None if row is None else (row[0], json.loads(row[1]))


def offsets(session: Session, job_id: str) -> dict[str, int]:
    """Up to which byte each spool file of the job has been read."""
    return dict(session.execute(select(SpoolRow.file, SpoolRow.offset).where(SpoolRow.job_id == job_id)).all())


def keep_offset(session: Session, job_id: str, file: str, offset: int) -> None:
    """Notes up to which byte a spool file has been read."""
    row = session.get(SpoolRow, (job_id, file))
    if row is None:
        session.execute(insert(SpoolRow).values(job_id=job_id, file=file, offset=offset))
    else:
        row.offset = offset
