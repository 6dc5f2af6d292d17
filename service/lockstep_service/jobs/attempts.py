"""Which of the attempts that records speak of are the job's: only those that were claimed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from lockstep_service.database import Database
from lockstep_service.jobs import repository
from lockstep_service.tables import JobRow
from lockstep_slurm.job.rundir import claimed_attempts

_MOST = 4096
_FIRST = frozenset({1})
"""The attempt that needs no claim to be known."""


def claimed(row: JobRow, told: Iterable[int], seen: Collection[int]) -> set[int]:
    """Those of these attempts that were claimed, by the job's row, or as they were ``seen`` in its run directory.

    A record may come before its attempt's claim was read into the row; the first attempt needs none. A rank whose
    writer counts wrongly, or a stranger with the job's token, makes no attempt by naming it.
    """
    return set(told) & {*_FIRST, *seen, *(attempt.number for attempt in row.attempts)}


def newest_claimed(row: JobRow, told: Iterable[int], seen: Collection[int]) -> int | None:
    """The newest of these attempts that was claimed; None where none was."""
    return max(claimed(row, told, seen), default=None)


def look(row: JobRow, told: Iterable[int]) -> frozenset[int]:
    """The claims in the run directory, where ``told`` has attempts that the row does not know.

    For who only reads: the file system may be slow to answer, or hang, and so must hold no lock meanwhile.
    """
    told = set(told)
    return frozenset() if claimed(row, told, ()) == told else claimed_attempts(Path(row.run_dir))


@dataclass
class Claims:
    """By job, which attempts were seen to be claimed; jobs whose records came least lately are forgotten.

    No claim is ever taken back, so what was seen once needs no second look. A job's first batch looks whatever it tells
    of: of later attempts than its own records may be stored already.
    """

    _lock: Lock = field(default_factory=Lock)
    _known: OrderedDict[str, frozenset[int]] = field(default_factory=OrderedDict)

    def seen(self, database: Database, job_id: str, told: Collection[int]) -> frozenset[int]:
        """The attempts of the job that are known to be claimed, looked up where others are ``told``.

        To be asked before the transaction that takes their records: the run directory may lie on a file system that
        hangs, and whoever else has something to store would wait for it too.
        """
        with self._lock:
            known = self._known.get(job_id)
            if known is not None:
                self._known.move_to_end(job_id)
        if known is not None and known.issuperset(told):
            return known
        with database.reading() as session:
            run = repository.run_directory(session, job_id)
            stored = repository.attempts(session, job_id) | _FIRST
        if run is not None and (known is None or not stored.issuperset(told)):
            stored |= claimed_attempts(Path(run))
        with self._lock:
            known = self._known[job_id] = stored | self._known.get(job_id, _FIRST)
            self._known.move_to_end(job_id)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return known
