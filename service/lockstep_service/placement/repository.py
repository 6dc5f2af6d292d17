"""Every question to the database about placements and verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from lockstep_service.metrics.record import Record
from lockstep_service.placement import documents
from lockstep_service.tables import PlacementRow, VerdictRow


def note(session: Session, job_id: str, records: Sequence[Record]) -> bool:
    """Keeps the placements and verdicts among ``records``; whether there are any.

    The record with the highest seq is the newest, in whatever order they come. The caller holds the job's row.
    """
    # One statement may name a row only once.
    placements: dict[tuple[Any, ...], dict[str, Any]] = {}
    verdicts: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record.seq):
        place = {"job_id": job_id, "attempt": record.attempt, "rank": record.rank, "seq": record.seq}
        if record.kind == "placement":
            told = documents.placement_values(record.values)
            found = documents.node(told.document)
            placements[record.attempt, told.node] = place | {
                "node": told.node,
                "brief": found.model_dump_json(include={"ranks", "grant"}),
                "document": found.model_dump_json(),
            }
        elif record.kind == "verdict":
            short = documents.verdict_values(record.values)
            verdict = documents.verdict(short.document)
            verdicts[record.attempt, record.rank, short.when] = place | {
                "when": short.when,
                "node": short.node,
                "result": short.result,
                "brief": verdict.model_copy(update={"threads": []}).model_dump_json(),
                "document": verdict.model_dump_json(),
            }
    _keep_newest(session, PlacementRow, list(placements.values()))
    _keep_newest(session, VerdictRow, list(verdicts.values()))
    return bool(placements or verdicts)


def _keep_newest(session: Session, table: type[PlacementRow | VerdictRow], rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    kind = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = kind.insert(table)
    keys = [column.name for column in table.__table__.primary_key]
    session.execute(
        statement.on_conflict_do_update(
            index_elements=keys,
            set_={name: statement.excluded[name] for name in rows[0] if name not in keys},
            where=statement.excluded.seq > table.seq,
        ),
        rows,
    )


def attempts(session: Session, job_id: str) -> list[int]:
    """The attempts that told of their placement, in order."""
    told = select(PlacementRow.attempt).where(PlacementRow.job_id == job_id)
    return sorted(session.scalars(told.union(select(VerdictRow.attempt).where(VerdictRow.job_id == job_id))))


def results(session: Session, job_id: str, attempt: int) -> Counter[str]:
    """How many ranks of the attempt came to which result, each by its newest verdict."""
    wanted = (
        select(VerdictRow.rank, VerdictRow.result)
        .where(VerdictRow.job_id == job_id, VerdictRow.attempt == attempt)
        .order_by(VerdictRow.seq)
    )
    return Counter(dict(session.execute(wanted).all()).values())


def placements(session: Session, job_id: str, attempt: int, of: str | None, *, brief: bool) -> dict[str, str]:
    """By node, in the order of the ranks that told them: the document of its placement as JSON.

    It is the brief one of every node with ``brief``, else of every node but ``of`` where that is given.
    """
    document = PlacementRow.brief if brief else _whole_of(PlacementRow, of)
    wanted = (
        select(PlacementRow.node, document)
        .where(PlacementRow.job_id == job_id, PlacementRow.attempt == attempt)
        .order_by(PlacementRow.rank)
    )
    return dict(session.execute(wanted).all())


def verdicts(session: Session, job_id: str, attempt: int, of: str | None, *, brief: bool) -> dict[int, str]:
    """By rank: the document of its newest verdict as JSON; which of them are brief ones, as with ``placements``."""
    newest = (
        select(VerdictRow.rank, func.max(VerdictRow.seq).label("seq"))
        .where(VerdictRow.job_id == job_id, VerdictRow.attempt == attempt)
        .group_by(VerdictRow.rank)
        .subquery()
    )
    document = VerdictRow.brief if brief else _whole_of(VerdictRow, of)
    wanted = (
        select(VerdictRow.rank, document)
        .join(newest, and_(VerdictRow.rank == newest.c.rank, VerdictRow.seq == newest.c.seq))
        .where(VerdictRow.job_id == job_id, VerdictRow.attempt == attempt)
        .order_by(VerdictRow.rank)
    )
    return dict(session.execute(wanted).all())


def _whole_of(
    table: type[PlacementRow | VerdictRow], of: str | None
) -> ColumnElement[str] | InstrumentedAttribute[str]:
    return table.document if of is None else case((table.node == of, table.document), else_=table.brief)
