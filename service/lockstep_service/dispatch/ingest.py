"""Reading spools: from where it was left, whole lines only, records and position in one transaction."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.dispatch import worklists
from lockstep_service.filesystem import is_file_name
from lockstep_service.jobs import repository as jobs
from lockstep_service.jobs.phase import ENDED
from lockstep_service.metrics import repository, service
from lockstep_service.metrics.record import LONGEST_LINE, Batch, Record, RecordError, batch_of, parse, whole
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job import beneath
from lockstep_slurm.job.rundir import claimed_attempts, exit_file, open_spool, spool_attempts, spool_files

_PIECE = 1 << 20
"""Bytes of a spool in one transaction."""
_SETTLE = timedelta(seconds=1)
"""How long after the end was seen the last look at the spools is taken, for file systems that show a write late."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """Whole lines of a spool that are records, and the byte behind them."""

    batch: Batch
    end: int

    @property
    def records(self) -> Sequence[Record]:
        """The records."""
        return self.batch.records


def read_piece(file: Path, offset: int, limit: int = _PIECE) -> Piece | None:
    """The records of the next whole lines from byte ``offset`` on; None where there is not a whole line yet.

    A line that is no record is left out, and logged with its place: no line that follows it may wait for it.
    """
    with open_spool(file) as opened:
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
    lines = raw[: cut + 1]
    return Piece(batch_of(lines) or _one_by_one(file, offset, lines), offset + cut + 1)


def _one_by_one(file: Path, offset: int, lines: bytes) -> Batch:
    """Those of the lines that are records."""
    records, kept = [], []
    for place, line in whole(lines):
        try:
            records.append(parse(line))
            kept.append(line.strip() + b"\n")
        except RecordError as error:
            _log.warning("%s, byte %d: this line %s; it is left out", file, offset + place, error)
    return Batch(records, b"".join(kept))


def _behind_long_line(file: Path, opened: BinaryIO, offset: int) -> Piece | None:
    """Nothing, and the byte behind a line that is too long to be a record; None while it goes on."""
    while more := opened.read(_PIECE):
        if (cut := more.find(b"\n")) >= 0:
            end = opened.tell() - len(more) + cut + 1
            _log.warning("%s, byte %d: this line is %d bytes long; it is left out", file, offset, end - offset)
            return Piece(Batch([], b""), end)
    return None


@lru_cache(maxsize=1000)
def _say_once(text: str) -> None:
    _log.warning("%s", text)


def _spool_files(run: Path) -> Iterator[Path]:
    """What has the name of a spool, attempt by attempt; a folder that is a link has nothing."""
    try:
        attempts = spool_attempts(run)
    except beneath.NotPlainError as error:
        _say_once(f"{error}; there are no records in it")
        return
    for attempt in attempts:
        try:
            yield from spool_files(run, attempt)
        except beneath.NotPlainError as error:
            _say_once(f"{error}; there are no records in it")


def _spools(run: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """The spools of a run: the names under which their positions are stored, and what is known of each file now.

    Only files that a writer may have made: one of another kind may never end, and a link may lead anywhere.
    """
    for file in _spool_files(run):
        try:
            state = beneath.file_state(run, "spool", file.parent.name, file.name)
        except beneath.NotPlainError as error:
            _say_once(f"{error}; its records are not read")
            continue
        if is_file_name(file.name):
            yield f"{file.parent.name}/{file.name}", file, state
        else:
            _say_once(f"{str(file)!r} is no file that a writer makes; its records are not read")


def has_spools(run: Path) -> bool:
    """Whether a writer has begun a spool there, by one look at a folder; ``OSError`` where that cannot be had."""
    try:
        return next(os.scandir(run / "spool"), None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_spools(app: Application, job_id: str, run: Path) -> int:
    """Reads all spools of a job to their present end; returns how many bytes that were."""
    with app.database.reading() as session:
        offsets = repository.offsets(session, job_id)
    taken = 0
    for name, file, state in _spools(run):
        offset, written = offsets.get(name, 0), _written(state)
        # To its end as it is now: one that grows as fast as it is read must not keep the others waiting.
        while offset < state.st_size and (piece := read_piece(file, offset)) is not None:
            seen = app.claims.seen(app.database, job_id, piece.batch.attempts)
            with app.database.writing() as session:
                row = jobs.lock(session, job_id)
                if row is None:
                    return taken
                service.take_in(app, session, row, piece.batch, seen)
                if piece.records:
                    service.heard(row, written)
                repository.keep_offset(session, job_id, name, piece.end)
            taken += piece.end - offset
            offset = piece.end
    return taken


def _written(state: os.stat_result) -> datetime:
    """When a spool was last written: what is read now may have lain there for long. Never later than now."""
    return datetime.fromtimestamp(min(max(0.0, state.st_mtime), now().timestamp()), UTC)


def unfinished(app: Application, *, everything: bool, again: bool = False) -> bool:
    """Reads what jobs have not shipped, and makes final what has ended; returns whether any run, or have just ended.

    One that waits for its start is not looked at: it has nothing to read. ``everything``: reads also what is being
    shipped, and of all that wait, as at the service's start. ``again``: looks also at those of them that have run
    before, or may have begun since Slurm last answered.
    """
    with app.database.reading() as session:
        rows = worklists.reporting(session, waiting=everything, again=again)
    recently = now() - timedelta(seconds=app.settings.ingest_seconds)
    for row in rows:
        shipping = row.shipped_at is not None and row.shipped_at > recently
        try:
            _look_at(app, row, read=everything or not shipping)
        except (OSError, IntegrityError, *UNSTORABLE) as error:
            # One job's files must not keep the others' records waiting. It may be so for ever, at a look a second.
            _say_once(f"the spools of job {row.id} cannot be read: {error}; they are tried again")
    return bool(rows)


def _look_at(app: Application, row: Row[Any], *, read: bool) -> None:
    """Reads the job's spools, if ``read`` or it has ended, and makes final what has."""
    ended, run = _is_over(row), Path(row.run_dir)
    if row.phase == "waiting" and not has_spools(run):
        return
    # Seen before the reading: what is written until then is read.
    settled = ended and (row.ended_seen_at is None or row.ended_seen_at + _SETTLE <= now() or row.slurm_job_id is None)
    if read or ended:
        read_spools(app, row.id, run)
    if settled:
        _make_final(app, row)


def new_exits(app: Application) -> bool:
    """Whether a live job has an exit record that is not stored yet: a sign that it is time to ask Slurm."""
    with app.database.reading() as session:
        running = worklists.without_exit(session)
    return any(_is_there(exit_file(Path(run), attempt)) for run, attempt in running)


def _is_there(file: Path) -> bool:
    """Whether there is such a file; not, where that cannot be told: a sign each second would be one of nothing.

    The reconcile loop reads the folder as well, and says what is wrong with it.
    """
    try:
        return file.exists()
    except OSError:
        return False


def _is_over(row: JobRow | Row[Any]) -> bool:
    """Whether nothing more is looked for: its end was seen, or it is a run by hand that cannot be seen from here."""
    return row.phase in ENDED or (row.by_hand and row.phase == "unknown")


def _make_final(app: Application, seen: Row[Any]) -> None:
    claims = claimed_attempts(Path(seen.run_dir))
    with app.database.writing() as session:
        row = jobs.lock(session, seen.id)
        if row is not None and _is_over(row) and not row.final:
            service.settle(app, session, row, claims)
            row.final = True
            jobs.changed(session, row)
