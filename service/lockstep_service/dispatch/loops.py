"""``Dispatch``: the threads that submit, reconcile, read spools and ask for nodes, while the application runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

from lockstep_service.boundary import Application
from lockstep_service.clusters.service import fresh_for, refresh
from lockstep_service.dispatch import ingest, reconcile, submit, wanted
from lockstep_service.dispatch.cadence import Cadence
from lockstep_service.dispatch.restored import doubt_submits
from lockstep_service.retention import Ages, Upkeep
from lockstep_service.telemetry.trouble import Trouble

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 5.0
_AFTER_ERROR_SECONDS = 2.0
_STUCK_SECONDS = 180.0
_LONGEST_SECONDS = 60.0
"""Longest pause of a loop: one that has not turned for long is taken for stuck."""
_AGAIN_SECONDS = 10.0
"""Between two looks at the spools of jobs that wait and may have some all the same."""
_GATHER_SECONDS = 0.03
"""From one turn of the submit loop to the next, at least: a few dozen jobs cost the database little more than one."""
_UNSEEN_SECONDS = 2.0
"""Jobs that Slurm has taken are looked at after the turn that ends so late, though there are more to be submitted."""


@dataclass
class Loop:
    """One thread that does ``work`` again and again; ``work`` returns how many seconds to wait, unless woken."""

    name: str
    work: Callable[[], float]
    stopping: Event
    woken: Event = field(default_factory=Event)
    turned_at: float = field(default_factory=time.monotonic)
    pause: float = 0.0
    """Seconds that it waits behind its last turn, unless woken."""
    failing: bool = False
    trouble: Trouble = field(default_factory=Trouble)

    def start(self) -> Thread:
        """Starts the thread: a daemon, because a call to Slurm may take half a minute, and what it was is stored."""
        thread = Thread(target=self._run, name=self.name, daemon=True)
        thread.start()
        return thread

    def healthy(self) -> bool:
        """Whether it turns, and its last turn went well."""
        return not self.failing and time.monotonic() - self.turned_at - self.pause < _STUCK_SECONDS

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.woken.clear()
            self.turned_at = time.monotonic()
            self.pause = 0.0
            try:
                self.pause = self.work()
                self._went_well()
            except Exception as error:  # the loop must outlive whatever its work meets: a database restart, a full disk
                self._failed(error)
                self.pause = _AFTER_ERROR_SECONDS
            self.turned_at = time.monotonic()
            self.woken.wait(self.pause)

    def _failed(self, error: Exception) -> None:
        """Logs where it failed, once and then now and then: a database may be away for hours of turns."""
        self.failing = True
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if said := self.trouble.failed(why, time.monotonic()):
            _log.error("%s failed, and is tried again every %g s: %s", self.name, _AFTER_ERROR_SECONDS, said,
                       exc_info=error)  # fmt: skip

    def _went_well(self) -> None:
        self.failing = False
        if lasted := self.trouble.went_well(time.monotonic()):
            _log.info("%s goes on, after failing for %s", self.name, lasted)


class Dispatch:
    """A context in which the loops run. ``stopping`` is set at its end; on it a turn waits for more jobs to come."""

    def __init__(self, app: Application, stopping: Event | None = None) -> None:
        self._app = app
        self._stopping = stopping or Event()
        submit = self._gathering(app.measures.turning("submit", self._submit_turn))
        self._submit = Loop("submit", submit, self._stopping)
        self._reconcile = Loop("reconcile", app.measures.turning("reconcile", self._reconcile_turn), self._stopping)
        self._ingest = Loop("ingest", app.measures.turning("ingest", self._ingest_turn), self._stopping)
        self._nodes = Loop("nodes", app.measures.turning("nodes", self._nodes_turn), self._stopping)
        self.loops = (self._submit, self._reconcile, self._ingest, self._nodes)
        self._threads: list[Thread] = []
        self._pause = 0.0
        self._rests = False
        self._asked_at = 0.0
        self._looked = False
        self._submitted_at = -_GATHER_SECONDS
        self._unseen_since: float | None = None
        self._first = True
        ages = Ages.of_days(app.settings.keep_records_days, app.settings.keep_jobs_days)
        self._upkeep = Upkeep(app.database, app.figures, ages)
        self._told: str | None = None
        self._again_at = 0.0

    def __enter__(self) -> Self:
        if self._app.settings.dispatches:
            self.hear()
            self._app.dispatching = self._healthy
            if self._app.settings.restored:
                doubt_submits(self._app)
            self._threads = [loop.start() for loop in self.loops]
        return self

    def hear(self) -> None:
        """Has the application's other parts wake the loops."""
        self._app.wake, self._app.wake_submit = self._wake, self._submit.woken.set
        self._app.want_nodes = self._want_nodes

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._app.outbox.closing = True
        self._stopping.set()
        for loop in self.loops:
            loop.woken.set()
        deadline = time.monotonic() + 2.0
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _healthy(self) -> bool:
        return all(thread.is_alive() for thread in self._threads) and all(loop.healthy() for loop in self.loops)

    def _wake(self) -> None:
        self._submit.woken.set()
        self._reconcile.woken.set()

    def _want_nodes(self) -> None:
        self._app.answers.wanted = True
        self._nodes.woken.set()

    def _submit_turn(self) -> float:
        began = time.monotonic()
        taken, pause = submit.take_turn(self._app)
        self._submitted_at = time.monotonic()
        self._look_at_taken(taken, began, more=not pause)
        if pause:  # else there is more to be submitted first
            wanted.end_in_vain(self._app)
        return pause

    def _gathering(self, turn: Callable[[], float]) -> Callable[[], float]:
        """``turn``, so long after the one before that more jobs come together; what it waits is no part of its time."""

        def gathered() -> float:
            rest = self._submitted_at + _GATHER_SECONDS - time.monotonic()
            return 0.0 if self._stopping.wait(max(0.0, rest)) else turn()

        return gathered

    def _look_at_taken(self, taken: int, began: float, *, more: bool) -> None:
        """Has the other loop look at what Slurm took: once there is no more to be submitted, or after a while.

        ``began``: when the turn did that took so many; ``more``: there may be more to be submitted at once.
        """
        if taken and self._unseen_since is None:
            self._unseen_since = began
        if self._unseen_since is None or (more and time.monotonic() - self._unseen_since < _UNSEEN_SECONDS):
            return
        self._unseen_since = None
        if self._rests:  # once, however many turns there are until it has looked
            self._pause, self._rests = 0.0, False
            self._reconcile.woken.set()

    def _reconcile_turn(self) -> float:
        """One cycle; the pause grows while nothing moves, up to the polite limit."""
        app, settings = self._app, self._app.settings
        cadence = Cadence(settings.reconcile_seconds, settings.reconcile_limit_seconds)
        if not self._looked and self._pass_on():
            self._looked = True  # the cycle is the next turn's, so that none asks Slurm for more than two things
            return cadence.gap(app.watch.asking_seconds)
        gap = cadence.gap(app.watch.asking_seconds) - (time.monotonic() - self._asked_at)
        if gap > 0:
            return gap
        self._asked_at = time.monotonic()
        self._rests, self._looked = True, False
        moved = reconcile.reconcile(app)
        if moved is None:
            self._pause = 0.0
            return _IDLE_SECONDS
        if moved:
            self._submit.woken.set()  # what has ended may be what others wait for
        self._pause = cadence.pause(self._pause, moved=moved, cost=app.watch.asking_seconds)
        return self._pause

    def _pass_on(self) -> bool:
        """Tells Slurm what owners want of their jobs; whether that took a look at the queue first."""
        looks = self._app.watch.looks
        reconcile.pass_on_cancels(self._app)
        wanted.pass_on(self._app)
        return self._app.watch.looks != looks

    def _nodes_turn(self) -> float:
        """Asks for nodes and partitions, if it is time: a turn of its own, so that no cycle asks for more than jobs."""
        refresh(self._app)
        return min(fresh_for(self._app) or _IDLE_SECONDS, _LONGEST_SECONDS)

    def _ingest_turn(self) -> float:
        if self._first or self._app.url() != self._told:
            # Where the API is another process, it may move while this one goes on.
            self._told = self._app.url()
            submit.refresh_reports(self._app)
        again = time.monotonic() - self._again_at > _AGAIN_SECONDS
        live = ingest.unfinished(self._app, everything=self._first, again=again)
        if again:
            self._again_at = time.monotonic()
        self._first = False
        self._upkeep.turn()
        if ingest.new_exits(self._app):
            self._reconcile.woken.set()
        return min(1.0, self._app.settings.ingest_seconds) if live else self._app.settings.ingest_seconds
