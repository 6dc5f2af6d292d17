"""``Intake``: new jobs on their way into the database; those that come while others are being stored go in together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition

from sqlalchemy.exc import IntegrityError

from lockstep_service.database import UNSTORABLE, Database
from lockstep_service.jobs import repository
from lockstep_service.tables import JobRow


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
        self._changed = Condition()
        self._waiting: list[_New] = []
        self._storing = False

    def add(self, *rows: JobRow) -> None:
        """Returns when the jobs are stored to stay, all by one transaction.

        Raises what kept them from being stored, then none of them is, or what left that unknown.
        """
        mine = _New(rows)
        batch: list[_New] = []
        with self._changed:
            self._waiting.append(mine)
            while self._storing and not mine.done:
                self._changed.wait()
            if not mine.done:
                batch, self._waiting, self._storing = self._waiting, [], True
        if batch:
            try:
                self._store(batch)
            finally:
                with self._changed:
                    self._storing = False
                    self._changed.notify_all()
        if mine.error is not None:
            raise mine.error

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
