"""``Intake``: new jobs on their way into the database; those that come while others are being stored go in together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Lock

from sqlalchemy.exc import IntegrityError

from lockstep_service.database import UNSTORABLE, Database
from lockstep_service.jobs import repository
from lockstep_service.tables import JobRow

_GATHER_SECONDS = 0.005
"""At most so long those that came together before are waited for, to come together again: as long as a disk flushes."""


@dataclass
class _New:
    """The jobs of a request, which waits for them to be stored: all of them, or none."""

    rows: Sequence[JobRow]
    done: bool = False
    error: BaseException | None = None


class Intake:
    """One transaction at a time, and in each all that wait for it: a disk flushes for ten jobs as fast as for one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._stored, self._gathered = Condition(self._lock), Condition(self._lock)
        self._waiting: list[_New] = []
        self._storing = False
        self._usual = 1
        """How many requests are here at a time: those that a transaction stored, and those that waited meanwhile."""

    def add(self, *rows: JobRow) -> None:
        """Returns when the jobs are stored to stay, all by one transaction.

        Raises what kept them from being stored, then none of them is, or what left that unknown.
        """
        mine = _New(rows)
        batch: list[_New] = []
        with self._lock:
            self._waiting.append(mine)
            if self._are_all_here():
                self._gathered.notify()
            while self._storing and not mine.done:
                self._stored.wait()
            if not mine.done:
                self._storing = True
                try:
                    self._gathered.wait_for(self._are_all_here, _GATHER_SECONDS)
                except BaseException:  # no memory, say: the others are not to wait for this thread
                    self._storing = False
                    self._waiting.remove(mine)
                    self._stored.notify_all()
                    raise
                batch, self._waiting = self._waiting, []
        if batch:
            try:
                self._store(batch)
            finally:
                with self._lock:
                    self._storing = False
                    self._usual = max(len(batch) + len(self._waiting), self._usual // 2)
                    self._stored.notify_all()
        if mine.error is not None:
            raise mine.error

    def _are_all_here(self) -> bool:
        """Whether as many wait as there were lately; one that comes alone again and again waits for nobody."""
        return len(self._waiting) >= self._usual

    def _store(self, batch: Sequence[_New]) -> None:
        """Has every request of the batch ``done``, with its error where its jobs are not stored."""
        # In one order, so that two processes with the same keys do not wait for each other.
        batch = sorted(batch, key=lambda new: new.rows[0].idempotency_key or "")
        error = self._insert(batch)
        if isinstance(error, (IntegrityError, *UNSTORABLE)) and len(batch) > 1:
            for new in batch:  # it is one request's fault, and each on its own tells whose
                new.error = self._insert([new])
        else:
            for new in batch:
                new.error = error
        for new in batch:
            new.done = True

    def _insert(self, batch: Sequence[_New]) -> BaseException | None:
        """Stores them all or none; what went wrong."""
        try:
            with self._database.writing() as session:
                repository.insert_new(session, [row for new in batch for row in new.rows])
        except BaseException as error:
            return error
        return None
