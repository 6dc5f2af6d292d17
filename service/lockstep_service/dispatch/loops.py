"""``Dispatch``: the threads that submit, reconcile and read spools, for as long as the application runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

from lockstep_service.boundary import Application
from lockstep_service.clusters.service import refresh
from lockstep_service.dispatch import ingest, reconcile, submit
from lockstep_service.jobs import repository
from lockstep_service.wire import now

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 5.0
_AFTER_ERROR_SECONDS = 2.0
_SLOWER = 1.5
_STUCK_SECONDS = 180.0
_LEAST_GAP_SECONDS = 1.0
"""Between two bulk questions to Slurm, however often the loop is woken."""


@dataclass
class Loop:
    """One thread that does ``work`` again and again; ``work`` returns how many seconds to wait, unless woken."""

    name: str
    work: Callable[[], float]
    stopping: Event
    woken: Event = field(default_factory=Event)
    turned_at: float = field(default_factory=time.monotonic)
    failing: bool = False

    def start(self) -> Thread:
        """Starts the thread: a daemon, because a call to Slurm may take half a minute, and what it was is stored."""
        thread = Thread(target=self._run, name=self.name, daemon=True)
        thread.start()
        return thread

    def healthy(self) -> bool:
        """Whether it turns, and its last turn went well."""
        return not self.failing and time.monotonic() - self.turned_at < _STUCK_SECONDS

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.woken.clear()
            try:
                pause = self.work()
                self.failing = False
            except Exception:  # the loop must outlive whatever its work meets: a database restart, a full disk
                _log.exception("%s failed; it goes on in %g s", self.name, _AFTER_ERROR_SECONDS)
                self.failing = True
                pause = _AFTER_ERROR_SECONDS
            self.turned_at = time.monotonic()
            self.woken.wait(pause)


class Dispatch:
    """A context in which the loops run."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._stopping = Event()
        self._submit = Loop("submit", self._submit_turn, self._stopping)
        self._reconcile = Loop("reconcile", self._reconcile_turn, self._stopping)
        self._ingest = Loop("ingest", self._ingest_turn, self._stopping)
        self._loops = (self._submit, self._reconcile, self._ingest)
        self._threads: list[Thread] = []
        self._pause = 0.0
        self._asked_at = 0.0
        self._first = True

    def __enter__(self) -> Self:
        if self._app.settings.dispatch:
            self._app.wake = self._wake
            self._app.dispatching = self._healthy
            self._threads = [loop.start() for loop in self._loops]
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for loop in self._loops:
            loop.woken.set()
        deadline = time.monotonic() + 2.0
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _healthy(self) -> bool:
        return all(thread.is_alive() for thread in self._threads) and all(loop.healthy() for loop in self._loops)

    def _wake(self) -> None:
        self._submit.woken.set()
        self._reconcile.woken.set()

    def _submit_turn(self) -> float:
        if submit.submit_due(self._app):
            self._pause = 0.0
            self._reconcile.woken.set()
        with self._app.database.reading() as session:
            at = repository.next_submit(session, self._app.client.kind)
        return _IDLE_SECONDS if at is None else min(_IDLE_SECONDS, max(0.05, (at - now()).total_seconds()))

    def _reconcile_turn(self) -> float:
        """One cycle; the pause grows while nothing moves, up to the polite limit."""
        app, settings = self._app, self._app.settings
        reconcile.pass_on_cancels(app)
        gap = min(_LEAST_GAP_SECONDS, settings.reconcile_seconds) - (time.monotonic() - self._asked_at)
        if gap > 0:
            return gap
        self._asked_at = time.monotonic()
        changed = reconcile.reconcile(app)
        refresh(app)
        if changed is None:
            self._pause = 0.0
            return _IDLE_SECONDS
        least, most = settings.reconcile_seconds, settings.reconcile_limit_seconds
        self._pause = least if changed else min(max(self._pause * _SLOWER, least), max(least, most))
        return self._pause

    def _ingest_turn(self) -> float:
        if self._first:
            submit.refresh_reports(self._app)
        live = ingest.unfinished(self._app, everything=self._first)
        self._first = False
        if ingest.new_exits(self._app):
            self._reconcile.woken.set()
        return min(1.0, self._app.settings.ingest_seconds) if live else self._app.settings.ingest_seconds
