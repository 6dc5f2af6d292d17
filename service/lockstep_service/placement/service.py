"""Keeping what ranks tell of their placement, and putting an attempt's together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy.orm import Session

from lockstep_service.errors import NotFoundError
from lockstep_service.jobs import repository as jobs
from lockstep_service.jobs.attempts import look, newest_claimed
from lockstep_service.jobs.service import existing
from lockstep_service.jobs.view import ranks_of
from lockstep_service.metrics.record import Record
from lockstep_service.placement import documents, repository
from lockstep_service.placement.schemas import (
    JobPlacement,
    NodeBrief,
    NodeDocument,
    NodePlacement,
    RankPlacement,
    Result,
    Verdict,
    worst,
)
from lockstep_service.tables import JobRow


def take_in(session: Session, row: JobRow, records: Sequence[Record], seen: Collection[int]) -> None:
    """Notes the placements and verdicts among new ``records``, and what the job's verdicts come to now.

    The records are stored, the caller has locked ``row`` and raised its revision. ``seen``: the attempts that were seen
    to be claimed before that.
    """
    if not any(record.kind in documents.KINDS for record in records):
        return
    repository.note(session, row.id, records)
    attempt = newest_claimed(row, repository.attempts(session, row.id), seen)
    if attempt is None:
        return
    row.verdicts = {
        "attempt": attempt,
        "results": dict(sorted(repository.results(session, row.id, attempt).items())),
        "revision": row.revision,
    }
    # Open pages hear of it as of every change of the job.
    jobs.changed(session, row)


def read(session: Session, job_id: str, *, attempt: int | None, node: str | None, brief: bool) -> JobPlacement:
    """The placement of ``attempt``, by default the newest that was claimed or told of its placement.

    ``node``: of this node alone. ``brief``: without machines, plans and threads, which are long.
    ``NotFoundError`` when there is no such job, attempt, or node.
    """
    row = existing(session, job_id)
    told = repository.attempts(session, job_id)
    numbers = sorted({*told, *(known.number for known in row.attempts)})
    if attempt is not None and attempt not in numbers:
        raise NotFoundError(f"Job {job_id} has no attempt {attempt}; it has {numbers or 'none yet'}.")
    number = attempt if attempt is not None else newest_claimed(row, numbers, look(row, numbers))
    if number is None:
        return JobPlacement(attempt=None, result=None, nodes=[])
    plans = _plans(repository.placements(session, job_id, number, node, brief=brief), node, brief=brief)
    found = {
        rank: Verdict.model_validate_json(document)
        for rank, document in repository.verdicts(session, job_id, number, node, brief=brief).items()
    }
    nodes = _nodes(plans, found)
    heard = [one.verdict.result for each in nodes for one in each.ranks if one.verdict is not None]
    result = worst(heard) if len(heard) >= ranks_of(row, number) else None
    if node is not None:
        if not any(each.node == node for each in nodes):
            names = ", ".join(each.node for each in nodes) or "none yet"
            raise NotFoundError(f"Attempt {number} of job {job_id} tells of no node {node!r:.260}; of these: {names}.")
        nodes = [each for each in nodes if each.node == node]
    return JobPlacement(attempt=number, result=result, nodes=nodes)


def _plans(found: Mapping[str, str], of: str | None, *, brief: bool) -> dict[str, NodeBrief]:
    """By node its document: the whole one (``NodeDocument``) of ``of``, or of all where none is named."""
    return {
        name: (NodeBrief if brief or of not in {None, name} else NodeDocument).model_validate_json(document)
        for name, document in found.items()
    }


def _nodes(told: Mapping[str, NodeBrief], found: Mapping[int, Verdict]) -> list[NodePlacement]:
    """Node by node, in the order of their first ranks; a node of which only a rank told is among them."""
    ranks: dict[str, dict[int, RankPlacement]] = {
        name: {
            one.rank: RankPlacement(rank=one.rank, local_rank=one.local_rank, granted=one.granted, verdict=None)
            for one in node.ranks
        }
        for name, node in told.items()
    }
    for rank, verdict in found.items():
        of_node = ranks.setdefault(verdict.node, {})
        known = of_node.get(rank)
        of_node[rank] = RankPlacement(
            rank=rank,
            local_rank=verdict.local_rank,
            granted=known.granted if known is not None else [],
            verdict=verdict,
        )
    return [
        _node(name, told.get(name), [of_node[rank] for rank in sorted(of_node)])
        for name, of_node in sorted(ranks.items(), key=lambda item: (min(item[1], default=0), item[0]))
    ]


def _node(name: str, told: NodeBrief | None, ranks: list[RankPlacement]) -> NodePlacement:
    verdicts: Collection[Verdict | None] = [one.verdict for one in ranks]
    heard: list[Result] = [verdict.result for verdict in verdicts if verdict is not None]
    whole = told if isinstance(told, NodeDocument) else None
    return NodePlacement(
        node=name,
        result=worst(heard) if heard and len(heard) == len(ranks) else None,
        topology=None if whole is None else whole.topology,
        placement=None if whole is None else whole.placement,
        grant=[] if told is None else told.grant,
        ranks=ranks,
    )
