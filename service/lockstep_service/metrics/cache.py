"""``FiguresCache``: the figures of the jobs that are being looked at, kept so that each look reads only what is new."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from sqlalchemy.orm import Session

from lockstep_service.jobs.phase import ENDED
from lockstep_service.metrics import repository
from lockstep_service.metrics.figures import Figures
from lockstep_service.metrics.schemas import Metrics
from lockstep_service.tables import JobRow

_KEPT_JOBS = 32


@dataclass
class FiguresCache:
    """The figures of the jobs that were looked at last; each look adds only what came since."""

    _lock: Lock = field(default_factory=Lock)
    _kept: OrderedDict[str, tuple[Lock, Figures]] = field(default_factory=OrderedDict)

    def read(self, session: Session, row: JobRow, points: int) -> Metrics:
        """The job's figures as of its row."""
        with self._lock:
            lock, figures = self._kept.setdefault(row.id, (Lock(), Figures()))
            self._kept.move_to_end(row.id)
            while len(self._kept) > _KEPT_JOBS:
                self._kept.popitem(last=False)
        with lock:
            if figures.revision < row.revision:
                for record in repository.between(session, row.id, figures.revision, row.revision):
                    figures.add(record)
                figures.revision = row.revision
            over = {attempt.number for attempt in row.attempts[:-1]} | {
                attempt.number for attempt in row.attempts if row.phase in ENDED
            }
            return Metrics(
                job_id=row.id,
                revision=figures.revision,
                series=figures.series(points, frozenset(over)),
                by_rank=figures.by_rank(),
            )
