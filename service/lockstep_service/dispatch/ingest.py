"""Reading spools: from where it was left, whole lines only, records and position in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.filesystem import is_file_name, is_own_file, is_own_folder
from lockstep_service.jobs import repository as jobs
from lockstep_service.jobs.phase import ENDED
from lockstep_service.metrics import repository, service
from lockstep_service.metrics.record import LONGEST_LINE, Record, RecordError, parse
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
        if (cut := raw.rfind(b"\n")) < 0 and len(raw) == limit:
            # A line longer than a piece.
            raw += opened.readline(LONGEST_LINE)
            cut = raw.rfind(b"\n")
        if cut < 0 and len(raw) > LONGEST_LINE:
            return _behind_long_line(file, opened, offset)
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


def _behind_long_line(file: Path, opened: BinaryIO, offset: int) -> Piece | None:
    """Nothing, and the byte behind a line that is too long to be a record; None while it goes on."""
    while more := opened.read(_PIECE):
        if (cut := more.find(b"\n")) >= 0:
            end = opened.tell() - len(more) + cut + 1
            _log.warning("%s, byte %d: this line is %d bytes long; it is left out", file, offset, end - offset)
            return Piece([], end)
    return None


@lru_cache(maxsize=1000)
def _say_once(text: str) -> None:
    _log.warning("%s", text)


def _spools(run: Path) -> Iterator[tuple[str, Path]]:
    """The spools of a run, by the names under which their positions are stored.

    Only files that a writer may have made: one of another kind may never end, and a link may lead anywhere.
    """
    if not is_own_folder(run / "spool", run):
        return
    for attempt in spool_attempts(run):
        for file in spool_files(run, attempt):
            if is_own_file(file, run) and is_file_name(file.name):
                yield f"{attempt}/{file.name}", file
            else:
                _say_once(f"{str(file)!r} is no file that a writer makes; its records are not read")


def read_spools(app: Application, job_id: str, run: Path) -> int:
    """Reads all spools of a job to their present end; returns how many bytes that were."""
    with app.database.reading() as session:
        offsets = repository.offsets(session, job_id)
    taken = 0
    for name, file in _spools(run):
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
        ended = _is_over(row)
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
            except (OSError, *UNSTORABLE) as error:  # one job's files must not keep the others' records waiting
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


def _is_over(row: JobRow) -> bool:
    """Whether nothing more is looked for: its end was seen, or it is a run by hand that cannot be seen from here."""
    return row.phase in ENDED or (row.by_hand and row.phase == "unknown")


def _make_final(app: Application, seen: JobRow) -> None:
    with app.database.writing() as session:
        row = jobs.lock(session, seen.id)
        if row is not None and _is_over(row) and not row.final:
            row.final = True
            jobs.changed(session, row)
