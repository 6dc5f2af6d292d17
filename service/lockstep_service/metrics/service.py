"""Taking records in, all or none of a batch, and giving figures out."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from lockstep_service.boundary import Application
from lockstep_service.database import told
from lockstep_service.errors import ForbiddenError, InvalidError, MalformedError, TooLargeError
from lockstep_service.events.broadcaster import Change
from lockstep_service.jobs import repository as jobs
from lockstep_service.jobs.service import existing
from lockstep_service.metrics import repository
from lockstep_service.metrics.figures import mean
from lockstep_service.metrics.pace import RECENT, Pace, communication_share, throughput
from lockstep_service.metrics.record import Record, RecordError, number, parse
from lockstep_service.metrics.schemas import Acknowledgement, Metrics
from lockstep_service.tables import JobRow
from lockstep_service.wire import moment, now, rfc3339

_MOST_MEMBERS = 100
"""Each costs a copy of all that follows it."""


def store(app: Application, session: Session, job_id: str, body: bytes, encoding: str) -> Acknowledgement:
    """Stores the records in ``body``, which their job's ranks sent; ``InvalidError`` names the line that is none."""
    plain = _unpacked(body, encoding, app.settings.records_plain_limit)
    records = []
    for index, line in enumerate(io.BytesIO(plain), 1):
        if not line.strip():
            continue
        try:
            records.append(parse(line))
        except RecordError as error:
            raise InvalidError.at(f"line {index}", str(error), line[:200].decode("utf-8", "backslashreplace")) from None
    row = jobs.lock(session, job_id)
    if row is None:
        raise ForbiddenError("The token is of a job that is no more.")
    row.shipped_at = now()
    reached = take_in(session, row, records)
    return Acknowledgement(acknowledged={f"{attempt}/{rank}": seq for (attempt, rank), seq in reached.items()})


def take_in(session: Session, row: JobRow, records: Sequence[Record]) -> dict[tuple[int, int], int]:
    """Stores what is new of ``records`` and what follows from it; per (attempt, rank), up to where none is missing.

    The caller has locked ``row``, so that revisions grow in the order in which they are committed.
    """
    new = repository.add(session, row.id, row.revision + 1, records)
    reached = repository.advance(session, row.id, records)
    if new:
        row.revision += 1
        session.flush()
        row.last = newest_figures(session, row.id)
        told(session, Change(row.id, "metrics"))
    return reached


def newest_figures(session: Session, job_id: str) -> dict[str, Any]:
    """The job's ``last``, as JSON, without what is not known yet."""
    attempt = repository.newest_attempt(session, job_id)
    if attempt is None:
        return {}
    ranks = repository.newest_whole_step(session, job_id, attempt)
    start = repository.newest_of_kind(session, job_id, attempt, "start")
    evaluation = repository.newest_of_kind(session, job_id, attempt, "evaluation")
    steps = number(start[1].get("steps")) if start else None
    figures: dict[str, Any] = {
        "steps": None if steps is None else int(steps),
        "accuracy": number(evaluation[1].get("accuracy")) if evaluation else None,
    }
    times = [evaluation[0]] if evaluation else []
    if ranks:
        values = [of_rank for _, _, of_rank in ranks]
        recent = repository.recent_steps(session, job_id, attempt, ranks[0][1], RECENT)
        rates = [throughput([Pace.of(found) for found in of_rank]) for of_rank in recent]
        shares = [communication_share([Pace.of(found) for found in of_rank]) for of_rank in recent]
        epochs = [epoch for of_rank in values if (epoch := number(of_rank.get("epoch"))) is not None]
        known_rates = [rate for rate in rates if rate is not None]
        figures |= {
            "step": ranks[0][1],
            "epoch": max(epochs, default=None),
            "samples_per_s": sum(known_rates) if known_rates and len(known_rates) == len(rates) else None,
            "loss": mean([number(of_rank.get("loss")) for of_rank in values]),
            "communication_share": mean(shares),
        }
        times.extend(time for time, _, _ in ranks)
    newest: datetime | None = moment(max(times, default=None))
    figures["time"] = None if newest is None else rfc3339(newest)
    return {name: value for name, value in figures.items() if value is not None}


def metrics(app: Application, session: Session, job_id: str, points: int) -> Metrics:
    """The job's figures; ``NotFoundError`` when there is no such job."""
    return app.figures.read(session, existing(session, job_id), points)


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its encoding; ``TooLargeError`` before more than ``limit`` bytes are made of it."""
    if encoding.strip().lower() in {"", "identity"}:
        plain = body
    elif encoding.strip().lower() in {"gzip", "x-gzip"}:
        plain = _gunzipped(body, limit)
    else:
        raise MalformedError(f"Content-Encoding is {encoding!r:.60}; send gzip, or none.")
    if len(plain) > limit:
        raise TooLargeError(f"The records are longer than {limit} bytes; send fewer at once.")
    return plain


def _gunzipped(body: bytes, limit: int) -> bytes:
    plain = bytearray()
    rest = body
    members = 0
    try:
        while rest:
            if (members := members + 1) > _MOST_MEMBERS:
                raise MalformedError(f"The body has more than {_MOST_MEMBERS} gzip members; send one.")
            member = zlib.decompressobj(wbits=31)
            plain += member.decompress(rest, limit + 1 - len(plain))
            if len(plain) > limit:
                raise TooLargeError(f"The records are longer than {limit} bytes decompressed; send fewer at once.")
            if not member.eof:
                raise MalformedError("The body ends in the middle of its gzip stream; send it again.")
            rest = member.unused_data
    except zlib.error as error:
        raise MalformedError(f"The body is not gzip: {error}.") from None
    return bytes(plain)
