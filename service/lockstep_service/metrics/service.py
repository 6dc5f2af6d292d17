"""Taking records in, all or none of a batch, and giving figures out."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy.orm import Session

from lockstep_service.auth.boundary import NOT_THE_JOBS
from lockstep_service.auth.service import same
from lockstep_service.boundary import Application
from lockstep_service.database import told
from lockstep_service.errors import ForbiddenError, InvalidError, MalformedError, TooLargeError
from lockstep_service.events.broadcaster import Change
from lockstep_service.jobs import repository as jobs
from lockstep_service.jobs.attempts import claimed, newest_claimed
from lockstep_service.jobs.service import existing
from lockstep_service.metrics import repository
from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.record import Batch, Record, RecordError, batch_of, parse
from lockstep_service.metrics.schemas import Acknowledgement, Metrics
from lockstep_service.placement import service as placement
from lockstep_service.tables import JobRow
from lockstep_service.timeline import repository as timeline
from lockstep_service.timeline import training
from lockstep_service.wire import now

_PIECE = 1 << 20
"""Bytes that are unpacked at once."""
_MOST_MEMBERS = 100
"""Each costs a copy of all that follows it."""
_MANY_RANKS, _LAST_SECONDS = 64, 1.0
_log = logging.getLogger(__name__)


def store(
    app: Application, session: Session, job_id: str, writer: str, sent: Batch, *, seen: Collection[int]
) -> Acknowledgement:
    """Stores the records that a job's ranks sent.

    ``writer``: the hash of the sender's token; ``ForbiddenError`` where it is not the job's any more. ``seen``: as for
    ``take_in``.
    """
    row = jobs.lock_all(session, [job_id]).get(job_id)  # without its spec and script
    if row is None:
        raise ForbiddenError("The token is of a job that is no more.")
    if not same(writer, row.token_hash or ""):
        raise ForbiddenError(NOT_THE_JOBS)
    row.shipped_at = moment = now()
    heard(row, moment)
    reached = take_in(app, session, row, sent, seen)
    return Acknowledgement(acknowledged={f"{attempt}/{rank}": seq for (attempt, rank), seq in reached.items()})


def heard(row: JobRow, moment: datetime) -> None:
    """Notes that the job's ranks lived at ``moment``. The caller has locked ``row``."""
    if row.heard_at is not None and row.heard_at >= moment:
        return
    row.heard_at = moment
    if row.phase == "unknown" and row.missing_since is not None:
        row.changed_at = now()  # nothing else says that the reconcile loop has to look at it again


def take_in(
    app: Application, session: Session, row: JobRow, batch: Batch, seen: Collection[int]
) -> dict[tuple[int, int], int]:
    """Stores what is new of ``batch`` and what follows from it; per (attempt, rank), up to where none is missing.

    The caller has locked ``row``, so that revisions grow in the order in which they are committed. ``seen``: what
    ``Claims`` said of the batch's attempts before that.
    """
    figures = app.figures.to_change(session, row)
    taken = figures.take(batch.records)
    if any(taken):
        new = batch.only(taken)
        row.revision = figures.revision = row.revision + 1
        repository.add(session, row.id, row.revision, new)
        # Over many ranks it takes long, and their batches come one by one.
        if len(figures.ranks) <= _MANY_RANKS or time.monotonic() - figures.last_told > _LAST_SECONDS:
            figures.last_told = time.monotonic()
            _tell_last(row, figures, seen)
        session.flush()
        placement.take_in(session, row, new.records, seen)
        _tell_timeline(session, row, figures, new.records, seen)
        if figures.to_store:
            repository.keep(session, row.id, figures)
            app.figures.tidy()
        told(session, Change(row.id, "metrics"))
    reached = figures.reached(batch.records)
    if figures.full and not all(reached.values()):
        _tell_once(row.id, len(figures.ranks))
    return reached


@lru_cache(maxsize=1000)
def _tell_once(job_id: str, ranks: int) -> None:
    _log.warning(
        "job %s has records of %d ranks, over all its attempts, and those of further ones are not stored; rerun it, "
        "where they are to be seen",
        job_id,
        ranks,
    )


def settle(app: Application, session: Session, row: JobRow, seen: Collection[int]) -> None:
    """Stores the figures of a job to which nothing will be added. The caller has locked ``row``.

    ``seen``: the attempts that were seen to be claimed before that.
    """
    figures = app.figures.to_change(session, row)
    if figures.ranks:
        _tell_last(row, figures, seen)
    if figures.unstored:
        repository.keep(session, row.id, figures)
    app.figures.tidy()


def _tell_last(row: JobRow, figures: Figures, seen: Collection[int]) -> None:
    newest = newest_claimed(row, figures.told(), seen)
    if newest is not None:
        row.last = figures.last(newest)


def _tell_timeline(
    session: Session, row: JobRow, figures: Figures, new: Sequence[Record], seen: Collection[int]
) -> None:
    """What is said of checkpoints and of staged data, of those attempts that ``new`` records tell of."""
    told: dict[int, set[str]] = {}
    for record in new:
        if record.kind in training.KINDS:
            told.setdefault(record.attempt, set()).add(record.kind)
    if told:
        for number in sorted(claimed(row, told, seen)):
            timeline.renew(session, row, training.entries(figures.attempts[number], told[number]))


def metrics(app: Application, session: Session, job_id: str, points: int, *, joined: bool) -> Metrics:
    """The job's figures; ``NotFoundError`` when there is no such job."""
    return app.figures.read(session, existing(session, job_id), points, joined=joined)


def unpack(body: bytes, encoding: str, limit: int) -> Batch:
    """The records in ``body``; ``InvalidError`` names the line that is none.

    ``TooLargeError`` where it is longer than ``limit`` bytes without its encoding.
    """
    plain, packed = _unpacked(body, encoding, limit)
    batch = batch_of(plain)
    if batch is not None:
        return Batch(batch.records, batch.lines, packed) if batch.lines is plain else batch
    records, kept = [], []
    for index, line in enumerate(plain.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(parse(line))
        except RecordError as error:
            raise InvalidError.at(f"line {index}", str(error), line[:200].decode("utf-8", "backslashreplace")) from None
        kept.append(line.strip() + b"\n")
    return Batch(records, b"".join(kept))


def _unpacked(body: bytes, encoding: str, limit: int) -> tuple[bytes, bytes | None]:
    """The body without its encoding, and by gzip if that is how it came.

    ``TooLargeError`` before more than ``limit`` bytes are made of it.
    """
    if encoding.strip().lower() in {"", "identity"}:
        if len(body) > limit:
            raise TooLargeError(f"The records are longer than {limit} bytes; send fewer at once.")
        return body, None
    if encoding.strip().lower() in {"gzip", "x-gzip"}:
        return _gunzipped(body, limit), body
    raise MalformedError(f"Content-Encoding is {encoding!r:.60}; send gzip, or none.")


def _gunzipped(body: bytes, limit: int) -> bytes:
    found: list[bytes] = []
    size, members, rest = 0, 0, body
    try:
        while rest:
            if (members := members + 1) > _MOST_MEMBERS:
                raise MalformedError(f"The body has more than {_MOST_MEMBERS} gzip members; send one.")
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                # Piece by piece: zlib needs twice the room of what it makes at once, and most of a bomb is never made.
                found.append(member.decompress(rest, _PIECE))
                if (size := size + len(found[-1])) > limit:
                    raise TooLargeError(f"The records are longer than {limit} bytes decompressed; send fewer at once.")
                rest = member.unconsumed_tail
                if not member.eof and not rest and len(found[-1]) < _PIECE:
                    raise MalformedError("The body ends in the middle of its gzip stream; send it again.")
            rest = member.unused_data
    except zlib.error as error:
        raise MalformedError(f"The body is not gzip: {error}.") from None
    return b"".join(found) if len(found) != 1 else found[0]
