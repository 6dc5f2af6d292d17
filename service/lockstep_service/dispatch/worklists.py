"""Which jobs there is something to do for: to be submitted, to be told to Slurm, to be watched, to be read.

The loops ask at each turn and get the ids and columns that they need; ``jobs.repository`` locks and changes jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, bindparam, exists, func, select
from sqlalchemy.orm import Session, aliased, lazyload

from lockstep_service.jobs.phase import ENDED
from lockstep_service.jobs.repository import pieces
from lockstep_service.tables import AttemptRow, JobRow


class Due(NamedTuple):
    """A job whose turn it is to be handed to Slurm."""

    id: str
    outstanding: bool
    """Whether the answer of a submit was lost."""
    refused: bool
    """Whether it was refused for what may never pass."""


def to_submit(session: Session, client: str, moment: datetime, limit: int | None) -> Sequence[Due]:
    """Jobs that have not been handed to Slurm, and whose turn it is at ``moment``, oldest first."""
    some = {"moment": moment, "limit": _ALL if limit is None else limit}
    return [Due(*found) for found in session.execute(_due(client), some)]


_ALL = 2**31 - 1


# Statements that are asked for at each turn are put together once: that takes as long as to ask them.
@cache
def _due(client: str) -> Select[str, bool, bool]:
    asked = (JobRow.id, JobRow.submit_started_at.is_not(None), JobRow.refused_since.is_not(None))
    its_time = (JobRow.submit_after.is_(None)) | (JobRow.submit_after <= bindparam("moment"))
    wanted = select(*asked).where(*_outbox(client), its_time).order_by(JobRow.created_at, JobRow.id)
    return wanted.limit(bindparam("limit"))


def not_submitted(session: Session, client: str) -> list[str]:
    """The ids of jobs that are to be submitted and were never tried, or were answered each time."""
    wanted = select(JobRow.id).where(*_outbox(client), JobRow.submit_started_at.is_(None))
    return list(session.scalars(wanted.order_by(JobRow.created_at, JobRow.id)))


def held_back(session: Session, client: str) -> list[tuple[str, str]]:
    """Ids and names of jobs that are kept from being submitted: by their owner, or for another job's end."""
    wanted = select(JobRow.id, JobRow.name).where(
        JobRow.dispatched_at.is_(None),
        JobRow.submit_started_at.is_(None),
        JobRow.by_hand.is_(False),
        JobRow.client.in_(same_scheduler(client)),
        JobRow.phase.not_in(ENDED),
        JobRow.user_hold | ~_its_turn(),
    )
    return [(job_id, name) for job_id, name in session.execute(wanted)]


def next_submit(session: Session, client: str) -> datetime | None:
    """When the next job is to be tried; None where none waits to be handed to Slurm."""
    return session.scalars(_next(client)).first()


@cache
def _next(client: str) -> Select[datetime]:
    # One that was not tried yet has been due since it was stored.
    due = func.coalesce(JobRow.submit_after, JobRow.created_at)
    return select(due).where(*_outbox(client)).order_by(due).limit(1)


def unexplained(session: Session, ids: Sequence[str]) -> Sequence[str]:
    """Those of these jobs that say nothing of why they wait."""
    return session.scalars(select(JobRow.id).where(JobRow.id.in_(ids), JobRow.reason.is_(None))).all()


def specs(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """The specs of these jobs, as JSON."""
    return {found[0]: found[1] for found in session.execute(select(JobRow.id, JobRow.spec).where(JobRow.id.in_(ids)))}


_WHOLE: Final = select(JobRow).where(JobRow.id.in_(bindparam("ids", expanding=True))).options(lazyload(JobRow.attempts))


def outgoing(session: Session, ids: Sequence[str]) -> Sequence[JobRow]:
    """These jobs, whole but for attempts, in the order of the ids."""
    found = {row.id: row for row in session.scalars(_WHOLE, {"ids": ids})}
    return [found[one] for one in ids if one in found]


def same_scheduler(client: str) -> tuple[str, ...]:
    """The clients behind which is the same scheduler: a job stays in Slurm when the service asks it another way."""
    slurm = ("command", "pyslurm")
    return slurm if client in slurm else (client,)


def _outbox(client: str) -> tuple[ColumnElement[bool], ...]:
    return (
        JobRow.dispatched_at.is_(None),
        JobRow.by_hand.is_(False),
        JobRow.client.in_(same_scheduler(client)),
        # The phase of all that is stored and not handed over; an index has these two.
        JobRow.final.is_(False),
        JobRow.phase == "accepted",
        # One that is on its way is taken to the end of it whatever is wanted meanwhile: Slurm may have it.
        JobRow.submit_started_at.is_not(None) | (JobRow.user_hold.is_(False) & _its_turn()),
    )


def _its_turn() -> ColumnElement[bool]:
    """Whether the job that a job comes after, if any, has ended as it had to."""
    before = aliased(JobRow)
    ended_well = exists().where(before.id == JobRow.follows, before.phase == "ended well")
    lives = exists().where(before.id == JobRow.follows, before.phase.not_in(ENDED))
    return JobRow.follows.is_(None) | ended_well | (JobRow.follows_any & ~lives)


def in_vain(session: Session) -> list[tuple[str, str, str | None, str | None]]:
    """Jobs that will never start: their ids, and id, name and reason of the one before them (None: it is not there)."""
    before = aliased(JobRow)
    wanted = (
        select(JobRow.id, JobRow.follows, before.name, before.reason)
        .outerjoin(before, before.id == JobRow.follows)
        .where(
            JobRow.follows.is_not(None),
            JobRow.follows_any.is_(False),
            JobRow.dispatched_at.is_(None),
            JobRow.submit_started_at.is_(None),
            JobRow.phase.not_in(ENDED),
            before.id.is_(None) | (before.phase == "ended badly"),
        )
    )
    return [(found[0], str(found[1]), found[2], found[3]) for found in session.execute(wanted)]


def to_pass_on(session: Session, client: str) -> Sequence[JobRow]:
    """Jobs in Slurm's hands of which something is wanted that Slurm has not been told."""
    wanted = select(JobRow).where(
        JobRow.wanted.is_not(None),
        JobRow.dispatched_at.is_not(None),
        JobRow.client.in_(same_scheduler(client)),
    )
    return session.scalars(wanted).all()


def to_cancel(session: Session, client: str) -> Sequence[JobRow]:
    """Jobs in Slurm's hands whose end was asked for and not yet passed on."""
    wanted = select(JobRow).where(
        JobRow.cancel_requested_at.is_not(None),
        JobRow.cancel_sent_at.is_(None),
        JobRow.dispatched_at.is_not(None),
        JobRow.client.in_(same_scheduler(client)),
        JobRow.phase.not_in(ENDED),
    )
    return session.scalars(wanted).all()


_LIVE = ("waiting", "running", "unknown")
"""The phases of jobs in Slurm's hands, or running by hand, whose end has not been seen."""


def live_marks(session: Session) -> dict[str, datetime]:
    """The live jobs in Slurm's hands, or running by hand, each with when it was changed last. One index answers it."""
    wanted = select(JobRow.id, JobRow.changed_at).where(JobRow.final.is_(False), JobRow.phase.in_(_LIVE))
    return {job_id: mark for job_id, mark in session.execute(wanted)}  # noqa: C416 - rows, of which dict() asks keys


def live_details(session: Session, ids: Sequence[str]) -> Iterator[Row[Any]]:
    """Of these jobs those columns by which they are found in Slurm and on disk, and how many ``attempts`` are known."""
    attempts = select(func.count()).where(AttemptRow.job_id == JobRow.id).scalar_subquery()
    wanted = select(
        JobRow.id, JobRow.changed_at, JobRow.slurm_job_id, JobRow.name, JobRow.run_dir, JobRow.by_hand, JobRow.client,
        JobRow.stale_since, JobRow.observed_at, attempts.label("attempts"), JobRow.phase, JobRow.state, JobRow.flags,
        JobRow.slurm_nodes, JobRow.reason, JobRow.slurm_reason, JobRow.expected_start, JobRow.missing_since,
        JobRow.ended_seen_at,
    ).where(JobRow.dispatched_at.is_not(None) | JobRow.by_hand)  # fmt: skip
    for some in pieces(ids):
        yield from session.execute(wanted.where(JobRow.id.in_(some)))


def unfinished(session: Session) -> Sequence[JobRow]:
    """Jobs that may still leave records: everything that is not final."""
    return session.scalars(select(JobRow).where(JobRow.final.is_(False)).order_by(JobRow.created_at)).all()


def reporting(session: Session, *, waiting: bool = False, again: bool = False) -> Sequence[Row[Any]]:
    """Of jobs that may leave records now, or whose end was just seen, the columns by which they are read.

    With ``waiting`` also all that wait in Slurm's hands; with ``again`` those of them that have run before, or may have
    begun since Slurm last answered.
    """
    wanted = select(
        JobRow.id, JobRow.run_dir, JobRow.phase, JobRow.by_hand, JobRow.slurm_job_id, JobRow.shipped_at,
        JobRow.ended_seen_at,
    ).where(JobRow.final.is_(False)).order_by(JobRow.created_at)  # fmt: skip
    phases = ("running", "unknown", *ENDED, *(("waiting",) if waiting else ()))
    found = [*session.execute(wanted.where(JobRow.phase.in_(phases)))]
    if again and not waiting:
        ran = exists().where(AttemptRow.job_id == JobRow.id)
        found += session.execute(wanted.where(JobRow.phase == "waiting", JobRow.stale_since.is_not(None) | ran))
    return found


def without_exit(session: Session) -> list[tuple[str, int]]:
    """The run directory and the number of the newest attempt of running jobs, where no exit record of it is stored."""
    later = aliased(AttemptRow)
    newest = select(func.max(later.number)).where(later.job_id == JobRow.id).scalar_subquery()
    wanted = (
        select(JobRow.run_dir, AttemptRow.number)
        .join(AttemptRow, AttemptRow.job_id == JobRow.id)
        .where(
            JobRow.final.is_(False),
            JobRow.phase.in_(("running", "unknown")),
            AttemptRow.number == newest,
            AttemptRow.exit_code.is_(None),
            AttemptRow.exit_signal.is_(None),
        )
    )
    return [(run, number) for run, number in session.execute(wanted)]
