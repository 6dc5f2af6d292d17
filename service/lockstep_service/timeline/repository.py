"""Every question to the database about timelines; a transaction stores what it tells by one statement at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Insert,
    Integer,
    String,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from lockstep_service.database import at_commit, told
from lockstep_service.events.broadcaster import Change
from lockstep_service.tables import JobRow, Moment, TimelineRow
from lockstep_service.timeline import facts
from lockstep_service.timeline.derive import derive
from lockstep_service.timeline.entry import MOVING, REPEATING, Entry, Kind, sentence
from lockstep_service.timeline.facts import Facts
from lockstep_service.wire import now

_GATHERED = "lockstep_timeline"
_MOST_REPEATING = 100
"""Entries of repeating kinds between two moves: Slurm's words may change every few seconds, for weeks."""


@dataclass
class _Gathered:
    """What happened in a transaction so far, and the last that was derived of each job."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    known: dict[str, Facts] = field(default_factory=dict)
    renewed: dict[tuple[str, Kind, int | None], Entry] = field(default_factory=dict)
    """By job, kind and attempt: what takes the place of the entry that there is."""


def begun(session: Session, row: JobRow) -> None:
    """A job that was not known is stored by this transaction."""
    after = facts.after(row)
    keep(session, row.id, derive(None, after))
    _gathered(session).known[row.id] = after


def changed(session: Session, row: JobRow) -> None:
    """This transaction changes the job: what that tells goes into its timeline.

    To be called before the change is flushed, which ``jobs.repository.changed`` sees to.
    """
    gathered = _gathered(session)
    after = facts.after(row)
    before = gathered.known.get(row.id) or facts.before(row, after)
    keep(session, row.id, derive(before, after))
    gathered.known[row.id] = after


def note(
    session: Session, row: JobRow, kind: Kind, text: str, *, attempt: int | None = None, time: datetime | None = None
) -> None:
    """Puts a sentence into the job's timeline that its row does not tell; open pages hear of it.

    ``time``: when it happened, by default now.
    """
    moment = now()
    row.changed_at = moment
    told(session, Change(row.id, "job"))
    keep(session, row.id, [Entry(time or moment, kind, sentence(text), attempt)])


def keep(session: Session, job_id: str, entries: Iterable[Entry]) -> None:
    """Stores ``entries`` with this transaction.

    Who changes many jobs by one statement calls this for each of them, and sets their ``changed_at`` by that statement,
    by which open pages know that there is something new.
    """
    rows = [_values(job_id, one) for one in entries]
    if rows:
        _gathered(session).entries.extend(rows)
        at_commit(session, _store)


def renew(session: Session, row: JobRow, entries: Iterable[Entry]) -> None:
    """Puts each of ``entries`` in the place of the one of its kind and attempt, at the timeline's end.

    So what sums up many things is one entry. One behind which the end of its attempt is told stays where it is.
    """
    new = {(row.id, one.kind, one.attempt): one for one in entries}
    if not new:
        return
    row.changed_at = now()
    told(session, Change(row.id, "job"))
    _gathered(session).renewed.update(new)
    at_commit(session, _store)


def page(session: Session, job_id: str, after: int, limit: int) -> Sequence[TimelineRow]:
    """At most ``limit`` entries of the job, oldest first, from behind the entry ``after`` on."""
    wanted = select(TimelineRow).where(TimelineRow.job_id == job_id, TimelineRow.id > after)
    return session.scalars(wanted.order_by(TimelineRow.id).limit(limit)).all()


def latest(session: Session, job_id: str) -> int:
    """The id of the job's newest entry; 0 when it has none."""
    return session.scalars(select(func.max(TimelineRow.id)).where(TimelineRow.job_id == job_id)).one() or 0


def _values(job_id: str, one: Entry) -> dict[str, Any]:
    return {"of_job": job_id, "at": one.time, "of_kind": one.kind, "of_attempt": one.attempt, "said": one.text}


def _gathered(session: Session) -> _Gathered:
    found: _Gathered = session.info.setdefault(_GATHERED, _Gathered())
    return found


def _store(session: Session) -> None:
    entries, _gathered(session).entries = _gathered(session).entries, []
    renewed, _gathered(session).renewed = _gathered(session).renewed, {}
    session.flush()  # a job's row comes before its timeline
    for (job_id, _, _), entry in renewed.items():
        if not _stays(session, job_id, entry):
            entries.append(_values(job_id, entry))
    if entries:
        repeating = any(entry["of_kind"] in REPEATING for entry in entries)
        session.connection().execute(_STORE_IF_NEW if repeating else _STORE, entries)


def _stays(session: Session, job_id: str, entry: Entry) -> bool:
    """Whether ``entry`` has taken the place of an earlier one; else that one is removed, where there is one."""
    of_attempt = TimelineRow.job_id == job_id, TimelineRow.attempt == entry.attempt
    known = session.execute(
        select(TimelineRow.id, TimelineRow.text).where(*of_attempt, TimelineRow.kind == entry.kind)
    ).first()
    if known is None:
        return False
    ended = select(TimelineRow.id).where(*of_attempt, TimelineRow.kind == "exit", TimelineRow.id > known.id)
    if known.text == entry.text or session.execute(ended.limit(1)).first() is not None:
        values = {"text": entry.text, "time": entry.time}
        session.execute(update(TimelineRow).where(TimelineRow.id == known.id).values(values))
        return True
    session.execute(delete(TimelineRow).where(TimelineRow.id == known.id))
    return False


def _store_if_new() -> Insert:
    """Inserts an entry, unless it is of a repeating kind and says what was said since the job last moved."""
    job, kind, text = _VALUES["job_id"], _VALUES["kind"], _VALUES["text"]
    earlier = TimelineRow.__table__.alias("earlier")
    moves = TimelineRow.__table__.alias("moves")
    moved = (
        select(func.coalesce(func.max(moves.c.id), 0))
        .where(moves.c.job_id == job, _any(moves.c.kind, MOVING))
        .scalar_subquery()
    )
    since = select(earlier.c.id).where(earlier.c.job_id == job, earlier.c.id > moved, _any(earlier.c.kind, REPEATING))
    count = since.with_only_columns(func.count()).scalar_subquery()
    new = ~since.where(earlier.c.text == text).exists()
    return insert(TimelineRow).from_select(
        list(_VALUES), select(*_VALUES.values()).where(or_(~_any(kind, REPEATING), new & (count < _MOST_REPEATING)))
    )


def _any(column: ColumnElement[str], kinds: tuple[Kind, ...]) -> ColumnElement[bool]:
    # Not by IN, whose parameters cannot be sent for many rows at once.
    return or_(*(column == literal(kind) for kind in kinds))


_VALUES: Final[dict[str, BindParameter[Any]]] = {
    "job_id": bindparam("of_job", type_=String),
    "time": bindparam("at", type_=Moment),
    "kind": bindparam("of_kind", type_=String),
    "attempt": bindparam("of_attempt", type_=Integer),
    "text": bindparam("said", type_=Text),
}
_STORE: Final = insert(TimelineRow).values(_VALUES)
_STORE_IF_NEW: Final = _store_if_new()
