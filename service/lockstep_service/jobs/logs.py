"""A piece of a job's log, read from the run directory."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

from sqlalchemy.orm import Session

from lockstep_service.errors import NotFoundError, UnavailableError
from lockstep_service.filesystem import is_own_file
from lockstep_service.jobs.schemas import LogText
from lockstep_service.jobs.service import existing
from lockstep_service.tables import JobRow

_log = logging.getLogger(__name__)


def read(session: Session, job_id: str, *, offset: int, limit: int, attempt: int | None) -> LogText:
    """At most ``limit`` bytes of the log of ``attempt`` (the newest by default) from ``offset`` on.

    ``NotFoundError`` when there is no such job or attempt. A job that has not written anything has an empty log.
    """
    row = existing(session, job_id)
    numbers = [known.number for known in row.attempts]
    if attempt is not None and attempt not in numbers:
        raise NotFoundError(f"Job {job_id} has no attempt {attempt}; it has {numbers or 'none yet'}.")
    number = attempt if attempt is not None else (numbers[-1] if numbers else None)
    files = _files(Path(row.run_dir))
    names = [file.name for file in files]
    log = _log_of(row, number, files)
    if log is None:
        return LogText(attempt=number, text="", offset=0, next_offset=0, size=0, files=names)
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            file.seek(start)
            raw = file.read(limit)
    except OSError as error:
        raise UnavailableError(f"The log {log} cannot be read: {error.strerror}; look whether it is there.") from None
    text, used = _decoded(raw, last=start + len(raw) >= size)
    return LogText(attempt=number, text=text, offset=start, next_offset=start + used, size=size, files=names)


def newest_size(run: Path) -> int:
    """Bytes of the newest log; 0 when there is none."""
    files = _files(run)
    try:
        return files[-1].stat().st_size if files else 0
    except FileNotFoundError:
        return 0


def _files(run: Path) -> list[Path]:
    """The logs, oldest first: plain files of the run's own, which a job may have mixed with others."""
    found = []
    for file in (run / "logs").glob("*.log"):
        try:
            if is_own_file(file, run):
                found.append((file.stat().st_mtime, file))
        except OSError as error:
            _log.warning("%s cannot be looked at: %s", file, error.strerror)
    return [file for _, file in sorted(found)]


def _log_of(row: JobRow, number: int | None, files: list[Path]) -> Path | None:
    slurm_ids = {attempt.number: attempt.slurm_job_id for attempt in row.attempts}
    name = f"job-{slurm_ids.get(number) if number is not None else row.slurm_job_id}.log"
    return next((file for file in files if file.name == name), files[-1] if files else None)


def _decoded(raw: bytes, *, last: bool) -> tuple[str, int]:
    """``raw`` as text, and how many of its bytes that is: a character cut off at the end waits for the next piece."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(raw)
    waiting = len(decoder.getstate()[0])
    if waiting and (last or waiting == len(raw)):
        return text + decoder.decode(b"", final=True), len(raw)
    return text, len(raw) - waiting
