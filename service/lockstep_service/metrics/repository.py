"""Every question to the database about records, figures and spools."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.record import Batch, Record, batch_of, parse, whole
from lockstep_service.tables import ChunkRow, CurveRow, FiguresRow, SpoolRow

_BATCH = 100


def add(session: Session, job_id: str, revision: int, batch: Batch) -> None:
    """Stores records that are not stored yet, together. The caller holds the job's row, and gives it this revision."""
    body = batch.packed if batch.packed is not None else gzip.compress(batch.lines, 1)
    row = {"job_id": job_id, "revision": revision, "records": len(batch.records), "body": body}
    session.execute(insert(ChunkRow), row)


def chunks(session: Session, job_id: str, later_than: int, up_to: int) -> Iterator[tuple[int, Sequence[Record]]]:
    """(revision, records) of what came behind revision ``later_than``, up to and with ``up_to``, in order."""
    wanted = (
        select(ChunkRow.revision, ChunkRow.body)
        .where(ChunkRow.job_id == job_id, ChunkRow.revision > later_than, ChunkRow.revision <= up_to)
        .order_by(ChunkRow.revision)
        .execution_options(yield_per=_BATCH)
    )
    for revision, body in session.execute(wanted):
        lines = gzip.decompress(body)
        batch = batch_of(lines)
        yield revision, batch.records if batch is not None else [parse(line) for _, line in whole(lines)]


def records(session: Session, job_id: str) -> Iterator[Record]:
    """Every record of the job that is kept, as they came in."""
    newest = session.scalars(select(func.max(ChunkRow.revision)).where(ChunkRow.job_id == job_id)).one()
    for _, found in chunks(session, job_id, 0, newest or 0):
        yield from found


def figures(session: Session, job_id: str) -> Figures:
    """The job's figures as they were last stored; empty ones where they never were."""
    kept = session.execute(
        select(FiguresRow.revision, FiguresRow.body).where(FiguresRow.job_id == job_id)
    ).one_or_none()
    if kept is None:
        return Figures()
    curves = select(CurveRow.body).where(CurveRow.job_id == job_id).order_by(CurveRow.number)
    return Figures.of(kept.revision, kept.body, session.scalars(curves).all())


def keep(session: Session, job_id: str, found: Figures) -> None:
    """Stores the job's figures as they are. The caller holds the job's row."""
    body, curves = found.stored()
    session.execute(delete(FiguresRow).where(FiguresRow.job_id == job_id))
    session.execute(insert(FiguresRow), {"job_id": job_id, "revision": found.revision, "body": body})
    if curves:
        session.execute(delete(CurveRow).where(CurveRow.job_id == job_id, CurveRow.number.in_(curves)))
        session.execute(
            insert(CurveRow), [{"job_id": job_id, "number": number, "body": kept} for number, kept in curves.items()]
        )


def is_kept(session: Session, job_id: str, revision: int) -> bool:
    """Whether the job's figures are stored as of this revision."""
    wanted = select(FiguresRow.revision).where(FiguresRow.job_id == job_id)
    return (session.scalars(wanted).one_or_none() or 0) >= revision


def with_records(session: Session, job_ids: Sequence[str]) -> list[str]:
    """Those of these jobs of which there are records, in the same order."""
    found: set[str] = set()
    for start in range(0, len(job_ids), 500):
        part = job_ids[start : start + 500]
        found.update(session.scalars(select(ChunkRow.job_id).where(ChunkRow.job_id.in_(part)).distinct()))
    return [job_id for job_id in job_ids if job_id in found]


def extent(session: Session, job_id: str) -> tuple[int, int]:
    """How many records of a job there are, and how many bytes they take."""
    wanted = select(func.sum(ChunkRow.records), func.sum(func.length(ChunkRow.body)))
    count, size = session.execute(wanted.where(ChunkRow.job_id == job_id)).one()
    return int(count or 0), int(size or 0)


def forget(session: Session, job_id: str, up_to: int) -> None:
    """Removes the records up to a revision of which the figures are stored. The caller holds the job's row."""
    session.execute(delete(ChunkRow).where(ChunkRow.job_id == job_id, ChunkRow.revision <= up_to))


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
