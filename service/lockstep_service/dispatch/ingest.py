"""Reading spools: from where it was left, whole lines only, records and position in one transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from lockstep_service.boundary import Application
from lockstep_service.jobs import repository as jobs
from lockstep_service.jobs.phase import ENDED
from lockstep_service.metrics import repository, service
from lockstep_service.metrics.record import Record, RecordError, parse
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job.rundir import exit_file, spool_attempts, spool_files

_PIECE = 1 << 20
"""Bytes of a spool in one transaction."""
_SETTLE = timedelta(seconds=1)
"""How long after the end was seen the last look at the spools is taken, for file systems that show a write late."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """Whole lines of a spool, as records, and the byte behind them."""

    records: list[Record]
    end: int


def read_piece(file: Path, offset: int, limit: int = _PIECE) -> Piece | None:
    """The records of the next whole lines from byte ``offset`` on; None where there is not a whole line yet.

    A line that is no record is left out, and logged with its place: no line that follows it may wait for it.
    """
    with file.open("rb") as opened:
        opened.seek(offset)
        raw = opened.read(limit)
        while (cut := raw.rfind(b"\n")) < 0 and len(raw) >= limit:
            # A line longer than a piece.
            more = opened.read(limit)
            if not more:
                break
            raw += more
    if cut < 0:
        return None
    records = []
    place = offset
    for line in raw[: cut + 1].splitlines(keepends=True):
        if line.strip():
            try:
                records.append(parse(line))
            except RecordError as error:
                _log.warning("%s, byte %d: this line %s; it is left out", file, place, error)
        place += len(line)
    return Piece(records, offset + cut + 1)


def read_spools(app: Application, job_id: str, run: Path) -> int:
    """Reads all spools of a job to their present end; returns how many bytes that were."""
    with app.database.reading() as session:
        offsets = repository.offsets(session, job_id)
    taken = 0
    if not (run / "spool").is_dir():
        return taken
    for attempt in spool_attempts(run):
        for file in spool_files(run, attempt):
            name = f"{attempt}/{file.name}"
            offset = offsets.get(name, 0)
            # As it is now: one that grows as fast as it is read must not keep the others waiting.
            end = file.stat().st_size
            while offset < end and (piece := read_piece(file, offset)) is not None:
                with app.database.writing() as session:
                    row = jobs.lock(session, job_id)
                    if row is None:
                        return taken
                    service.take_in(session, row, piece.records)
                    repository.keep_offset(session, job_id, name, piece.end)
                taken += piece.end - offset
                offset = piece.end
    return taken


def unfinished(app: Application, *, everything: bool) -> bool:
    """Reads what live jobs have not shipped, and makes final what has ended; returns whether there are live jobs.

    ``everything``: reads also what is being shipped, as at the service's start.
    """
    with app.database.reading() as session:
        rows = jobs.unfinished(session)
    recently = now() - timedelta(seconds=app.settings.ingest_seconds)
    for row in rows:
        ended = row.phase in ENDED
        if row.dispatched_at is None and not row.by_hand and not ended:
            continue
        shipping = row.shipped_at is not None and row.shipped_at > recently
        # Seen before the reading: what is written until then is read.
        settled = ended and (
            row.ended_seen_at is None or row.ended_seen_at + _SETTLE <= now() or row.slurm_job_id is None
        )
        if everything or ended or not shipping:
            try:
                read_spools(app, row.id, Path(row.run_dir))
            except OSError as error:
                _log.warning("the spools of job %s cannot be read: %s; they are tried again", row.id, error)
                continue
        if settled:
            _make_final(app, row)
    return bool(rows)


def new_exits(app: Application) -> bool:
    """Whether a live job has an exit record that is not stored yet: a sign that it is time to ask Slurm."""
    with app.database.reading() as session:
        rows = [row for row in jobs.unfinished(session) if row.phase not in ENDED and row.attempts]
    for row in rows:
        newest = row.attempts[-1]
        if (
            newest.exit_code is None
            and newest.exit_signal is None
            and exit_file(Path(row.run_dir), newest.number).exists()
        ):
            return True
    return False


def _make_final(app: Application, seen: JobRow) -> None:
    with app.database.writing() as session:
        row = jobs.lock(session, seen.id)
        if row is not None and row.phase in ENDED and not row.final:
            row.final = True
            jobs.changed(session, row)
