"""``Follower``: hears of changes that another process made, by looking into the database.

Only where API and dispatch are processes of their own: in one process the broadcaster tells of them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from threading import Event, Thread
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from lockstep_service.database import Database
from lockstep_service.jobs import repository
from lockstep_service.jobs.repository import Changed
from lockstep_service.wire import now

_PAUSE_SECONDS = 0.5
_OVERLAP = timedelta(seconds=2)
"""A change may be committed later than it was made, and the clocks of two hosts differ: so far back is looked again."""
_log = logging.getLogger(__name__)


class Follower:
    """A context in which ``told`` is called, from a thread, with what changed since the last look."""

    def __init__(self, database: Database, told: Callable[[Sequence[Changed]], None]) -> None:
        self._database = database
        self._told = told
        self._since = now()
        self._seen: set[tuple[str, datetime]] = set()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(2.0)

    def look(self) -> None:
        """Tells of each change once."""
        with self._database.reading() as session:
            rows = repository.changes(session, self._since - _OVERLAP)
        fresh = [row for row in rows if (row.id, row.changed_at) not in self._seen]
        if rows:
            self._since = max(self._since, rows[-1].changed_at)
        self._seen = {(row.id, row.changed_at) for row in rows}
        if fresh:
            self._told(fresh)

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE_SECONDS):
            try:
                self.look()
            except SQLAlchemyError as error:  # a database that is away comes back; what changed is then looked up
                _log.warning("what another process changed cannot be looked up: %s; it is tried again", error)
