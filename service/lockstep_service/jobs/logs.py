"""A piece of a job's log, read from the run directory."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.orm import Session

from lockstep_service.errors import NotFoundError, UnavailableError
from lockstep_service.jobs.schemas import LogText
from lockstep_service.jobs.service import existing
from lockstep_service.tables import JobRow
from lockstep_slurm.job import beneath

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
    run = Path(row.run_dir)
    names = _names(run)
    log = _log_of(row, number, names)
    if log is None:
        return LogText(attempt=number, text="", offset=0, next_offset=0, size=0, files=names)
    try:
        with beneath.open_file(run, "logs", log) as file:
            size = file.seek(0, 2)
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            file.seek(start)
            raw = file.read(limit)
    except OSError as error:
        raise UnavailableError(
            f"The log {run / 'logs' / log} cannot be read: {error.strerror}; look whether it is there."
        ) from None
    text, used = _decoded(raw, last=start + len(raw) >= size)
    return LogText(attempt=number, text=text, offset=start, next_offset=start + used, size=size, files=names)


def newest_size(run: Path) -> int:
    """Bytes of the newest log; 0 when there is none."""
    newest = max(_logs(run), default=None)
    return newest.size if newest is not None else 0


class _Log(NamedTuple):
    """A log; they sort oldest first."""

    changed: float
    name: str
    size: int


def _names(run: Path) -> list[str]:
    return [log.name for log in sorted(_logs(run))]


def _logs(run: Path) -> list[_Log]:
    """The logs: plain files of the run's own, which a job may have mixed with others."""
    try:
        names = [name for name in beneath.names_in(run, "logs") if name.endswith(".log")]
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning("the logs of %s cannot be looked at: %s", run, error.strerror)
        return []
    found = []
    for name in names:
        try:
            state = beneath.file_state(run, "logs", name)
        except (FileNotFoundError, beneath.NotPlainError):
            continue
        except OSError as error:
            _log.warning("%s cannot be looked at: %s", run / "logs" / name, error.strerror)
            continue
        found.append(_Log(state.st_mtime, name, state.st_size))
    return found


def _log_of(row: JobRow, number: int | None, names: list[str]) -> str | None:
    slurm_ids = {attempt.number: attempt.slurm_job_id for attempt in row.attempts}
    own = f"job-{slurm_ids.get(number) if number is not None else row.slurm_job_id}.log"
    return own if own in names else names[-1] if names else None


def _decoded(raw: bytes, *, last: bool) -> tuple[str, int]:
    """``raw`` as text, and how many of its bytes that is: a character cut off at the end waits for the next piece."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(raw)
    waiting = len(decoder.getstate()[0])
    if waiting and (last or waiting == len(raw)):
        return text + decoder.decode(b"", final=True), len(raw)
    return text, len(raw) - waiting
