"""``FiguresCache``: the figures of the jobs that report or are looked at, each as far as records are stored."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from sqlalchemy.orm import Session

from lockstep_service.database import at_end
from lockstep_service.jobs.attempts import claimed, look
from lockstep_service.jobs.phase import ENDED
from lockstep_service.metrics import repository
from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.schemas import Metrics
from lockstep_service.tables import JobRow

_MOST_NUMBERS = 32_000_000
"""Kept in memory over all jobs, 8 bytes each; the jobs that were used last stay."""


@dataclass
class _Entry:
    lock: Lock = field(default_factory=Lock)
    figures: Figures | None = None
    """None: to be read anew."""

    def follow(self, session: Session, job_id: str, revision: int) -> Figures:
        """The figures, with everything up to ``revision``."""
        figures = self.figures
        if figures is None or (figures.revision < revision and not self._add(figures, session, job_id, revision)):
            figures = repository.figures(session, job_id)
            if figures.revision < revision:
                self._add(figures, session, job_id, revision)
                figures.revision = revision
        self.figures = figures
        return figures

    def _add(self, figures: Figures, session: Session, job_id: str, revision: int) -> bool:
        """Adds what came since; whether that was all: another process may have rolled some up and pruned it."""
        self.figures = None  # half of it is worse than nothing
        for number, records in repository.chunks(session, job_id, figures.revision, revision):
            if number != figures.revision + 1:
                return False
            figures.take(records)
            figures.revision = number
        return figures.revision == revision


@dataclass
class FiguresCache:
    """Figures are kept as records come in, and stored now and then; each use reads only what came since."""

    _lock: Lock = field(default_factory=Lock)
    _kept: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)

    def read(self, session: Session, row: JobRow, points: int, *, joined: bool = False) -> Metrics:
        """The job's figures as of its row; ``joined``: one line of each figure over all attempts."""
        entry = self._entry(row.id)
        with entry.lock:
            told = self._follow(entry, session, row).told()
        # Not with the lock, for which whoever stores the job's records would wait.
        attempts = claimed(row, told, look(row, told))
        with entry.lock:
            figures = self._follow(entry, session, row)
            over = frozenset(attempt.number for attempt in (row.attempts if row.phase in ENDED else row.attempts[:-1]))
            return Metrics(
                job_id=row.id,
                revision=figures.revision,
                series=figures.joined(points, over, attempts) if joined else figures.series(points, over),
                attempts=figures.begun(attempts),
                by_rank=figures.by_rank(),
                step_time=figures.step_time(),
                data=figures.data(attempts),
            )

    def to_change(self, session: Session, row: JobRow) -> Figures:
        """The job's figures, for this transaction alone until it ends; it has locked ``row``.

        Where it is not committed, what was changed in them is forgotten.
        """
        held: dict[str, _Entry] = session.info.setdefault("lockstep_figures", {})
        entry = held.get(row.id)
        if entry is None:
            entry = held[row.id] = self._entry(row.id)
            entry.lock.acquire()
            at_end(session, lambda committed: _release(entry, committed=committed))
        if entry.figures is not None and entry.figures.revision > row.revision:
            entry.figures = None  # the database was put back to an earlier time
        return self._follow(entry, session, row)

    def _follow(self, entry: _Entry, session: Session, row: JobRow) -> Figures:
        anew = entry.figures is None
        figures = entry.follow(session, row.id, row.revision)
        if anew:
            self.tidy()
        return figures

    def _entry(self, job_id: str) -> _Entry:
        with self._lock:
            entry = self._kept.setdefault(job_id, _Entry())
            self._kept.move_to_end(job_id)
            return entry

    def tidy(self) -> None:
        """Lets go of the figures that were used least lately, as far as there are too many."""
        with self._lock:
            left = _MOST_NUMBERS
            for job_id, entry in reversed(list(self._kept.items())):
                figures = entry.figures
                left -= 100 if figures is None else figures.weight
                if left < 0 and not entry.lock.locked():
                    del self._kept[job_id]


def _release(entry: _Entry, *, committed: bool) -> None:
    if not committed:
        entry.figures = None
    entry.lock.release()
