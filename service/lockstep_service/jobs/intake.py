"""``Intake``: new jobs on their way into the database; those that come while others are being stored go in together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from lockstep_service.database import Database
from lockstep_service.jobs import repository
from lockstep_service.tables import JobRow


@dataclass
class _New:
    """A job whose request waits for it to be stored."""

    row: JobRow
    stored: bool = False
    error: BaseException | None = None


class Intake:
    """One transaction at a time, and in each all that wait for it: a disk flushes for ten jobs as fast as for one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = Lock()
        self._gate = Lock()
        self._waiting: list[_New] = []

    def add(self, row: JobRow) -> None:
        """Returns when the job is stored to stay. Raises what kept it, and no other, from being stored."""
        mine = _New(row)
        with self._gate:
            self._waiting.append(mine)
        with self._turn:
            if not mine.stored and mine.error is None:
                with self._gate:
                    batch, self._waiting = self._waiting, []
                self._store(batch)
        if mine.error is not None:
            raise mine.error

    def _store(self, batch: Sequence[_New]) -> None:
        try:
            with self._database.writing() as session:
                repository.insert_new(session, [new.row for new in batch])
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception):
                for new in batch:  # which of them it was, each on its own tells
                    self._store([new])
            else:
                for new in batch:
                    new.error = error
        else:
            for new in batch:
                new.stored = True
