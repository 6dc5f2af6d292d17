"""``Exchange``: issues pieces, strictly in the agreed order, as they become ready and credit allows, and ends them.

Every rank issues a prefix of the same order, so the oldest piece under way on the slowest rank is under way on all:
something always moves, whatever the credit. A thread does it, which sleeps on a condition; where a transport has to be
polled, it sleeps between two looks, and where one has to be driven, it sleeps in there. A piece that can be sent when
its last gradient comes is issued by the thread that trains, there and then: the other one would first have to wait for
Python's interpreter, half a millisecond of a step of five.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from lockstep_worker import births, slices
from lockstep_worker.gradients.counters import Counters
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.transport import POLL, Driven, Transport

LONGEST_POLL = 0.002
"""Seconds between two looks at most, later than a piece took before; a quarter of it while the training waits."""
BEFORE = 0.875
"""Of what a piece took when it was there last: sooner nobody looks,"""
FORESEEN = 4
"""but so many times the longest pause is the longest: that step may have been held up."""
CPUS = ("LOCKSTEP_EXCHANGE_CPUS", "LOCKSTEP_COMPUTE_CPUS")
"""Where the placement says that the thread runs: its own CPUs, else among the rank's."""


class Exchange:
    """The pieces of one step at a time. All methods but the thread's own are for the thread that trains."""

    def __init__(self, transport: Transport) -> None:
        self.counters = Counters()
        self._transport = transport
        self._driven: Driven | None = transport if isinstance(transport, Driven) else None
        """The transport, if the thread has to do its work."""
        self._lock = threading.RLock()  # re-entrant: a transport may call back while it is called
        self._work = threading.Condition(self._lock)
        """The thread sleeps on it."""
        self._done = threading.Condition(self._lock)
        """The training sleeps on it."""
        self._buffers: Sequence[Tensor] = ()
        self._names: Sequence[str] = ()
        self._order: Sequence[int] = ()
        self._tensors: Sequence[int] = ()
        """By piece: tensors in it."""
        self._credit = 1
        self._missing: list[int] = []
        """By piece: those of them that are not ready."""
        self._completed = bytearray()
        self._left = 0
        self._bytes = 0
        """Of all pieces together."""
        self._next = 0
        """Position in the order of what is issued next."""
        self._under_way: list[tuple[int, Any]] = []
        self._awaited: Sequence[int] = ()
        self._took: dict[str, float] = {}
        """By the piece's name: seconds on the link when it was there last. Plans that take turns are foreseen alike."""
        self._last_end = 0.0
        """When a piece ended last."""
        self._issued = 0
        """In all."""
        self._has_landed = False
        self._closing = False
        self._error: BaseException | None = None
        self.issued_at: list[float] = []
        self.completed_at: list[float] = []
        """By piece, of this step: ``time.perf_counter``."""
        self._thread = threading.Thread(target=self._run, name="lockstep-exchange", daemon=True)
        self._thread.start()

    def adopt(
        self, buffers: Sequence[Tensor], names: Sequence[str], order: Sequence[int], tensors: Sequence[int], credit: int
    ) -> None:
        """Takes new pieces: their buffers and names, their order, the tensors in each, how many may be under way."""
        with self._lock:
            self._buffers, self._names, self._order, self._tensors = buffers, names, order, tensors
            self._credit = credit
            self._bytes = sum(one.numel() * one.element_size() for one in buffers)
            self._missing, self._completed = [], bytearray(b"\1" * len(buffers))
            self._next, self._left = len(order), 0

    def forget(self) -> None:
        """The pieces that come are of another packing, under names of their own."""
        with self._lock:
            self._took.clear()

    def begin(self) -> None:
        """Begins a step: nothing is ready. The step before has to be complete."""
        with self._lock:
            self._raise()
            if self._left:
                raise GradientError(f"a step began while {self._left} pieces of the one before were under way")
            self._missing = list(self._tensors)
            self._completed = bytearray(len(self._tensors))
            self._left = len(self._tensors)
            self._next = 0
            self.counters.bytes += self._bytes
            self.issued_at = [0.0] * len(self._tensors)
            self.completed_at = [0.0] * len(self._tensors)

    def ready(self, pieces: Iterable[int]) -> None:
        """One tensor with elements in these pieces will not change any more."""
        with self._lock:
            for piece in pieces:
                self._missing[piece] -= 1
            if not self._issuable() or self._error is not None:
                return
            try:
                while self._issuable():
                    self._issue()
            except BaseException as error:  # raised by whoever waits, as what goes wrong in the thread
                self._fail(error)
                if self._driven is not None:
                    self._driven.wake()
            self._work.notify()

    def wait(self, pieces: Sequence[int] | None = None, seconds: float | None = None) -> None:
        """Sleeps until these pieces (None: all) are averaged; raises what went wrong in the thread.

        Raises ``TimeoutError`` after ``seconds``.
        """
        ends = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            if pieces is None:
                pieces = self._order
            began = None
            while not all(self._completed[piece] for piece in pieces):
                began = began or time.perf_counter()
                self._raise()
                self._awaited = pieces
                self._work.notify()  # it may be in a long sleep between two looks
                if not self._done.wait(None if ends is None else ends - time.monotonic()):
                    raise TimeoutError(f"{self._left} pieces of gradients were not averaged within {seconds} s")
            if began is not None:
                self.counters.waited += time.perf_counter() - began
            self._awaited = ()
            self._raise()

    def is_complete(self, pieces: Iterable[int]) -> bool:
        """Whether these pieces are averaged."""
        return all(self._completed[piece] for piece in pieces)

    def cpu_seconds_per_piece(self) -> float:
        """CPU time of the thread for each piece so far; 0.0 where it has CPUs that the training does not compute on."""
        own, compute = (os.environ.get(name, "").split(",") for name in CPUS)
        if own != [""] and not set(own) & set(compute):
            return 0.0
        assert self._thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident)) / max(self._issued, 1)

    def slice_us(self) -> float | None:
        """Microseconds of the thread's slice of the scheduler; None where the kernel has none of its own for it."""
        assert self._thread.native_id is not None
        found = slices.slice_of(self._thread.native_id)
        return None if found is None else found / 1000

    def close(self, seconds: float) -> bool:
        """Ends the thread once nothing is under way; whether it did within ``seconds``."""
        with self._lock:
            self._closing = True
            self._work.notify()
        if self._driven is not None:
            self._driven.wake()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            births.register("exchange")
            go_to_own_cpus()
            slices.shorten(threading.get_native_id())
            while self._turn():
                pass
        except BaseException as error:  # the training has to raise it, whatever it is
            with self._lock:
                self._fail(error)
        if self._driven is not None:
            self._driven.close()

    def _turn(self) -> bool:
        """Sleeps until there is something to do, and does it; False when it is time to end."""
        with self._lock:
            if not self._issuable() and (self._driven is not None or not self._has_landed):
                if self._closing and not self._under_way:
                    return False
                if self._driven is None:
                    self._work.wait(self._patience())
            self._has_landed = False
            if self._error is not None:
                return False
            if self._issuable():
                self._issue()
            more = self._issuable()
        if self._driven is not None and not more:
            self._driven.drive()
        self._collect()
        return True

    def _issue(self) -> None:
        """Issues what is next in the order, with the lock: no other piece may overtake it."""
        piece = self._order[self._next]
        self._next += 1
        now = self.issued_at[piece] = time.perf_counter()
        self._issued += 1
        if not self._under_way:
            self.counters.departs(now)
        handle = self._transport.start(self._buffers[piece], self._names[piece], self._landed)
        self._under_way.append((piece, handle))

    def _fail(self, error: BaseException) -> None:
        """With the lock. The first one counts."""
        self._error = self._error or error
        self._done.notify_all()

    def _issuable(self) -> bool:
        return (
            self._next < len(self._order)
            and len(self._under_way) < self._credit
            and self._missing[self._order[self._next]] == 0
        )

    def _patience(self) -> float | None:
        """Seconds to sleep; None: until woken."""
        if not self._under_way or self._transport.calls_back:
            return None
        # The next one waits on the link already, so an end that is seen late costs little, and each look costs the core
        # that computes: none before the piece can be there, later ones in proportion to how long it is under way.
        piece = self._under_way[0][0]
        elapsed = time.perf_counter() - max(self.issued_at[piece], self._last_end)
        longest = LONGEST_POLL / 4 if self._awaited else LONGEST_POLL
        foreseen = min(BEFORE * self._took.get(self._names[piece], 0.0) - elapsed, FORESEEN * longest)
        return max(foreseen, min(max(elapsed / 8, POLL), longest))

    def _landed(self) -> None:
        """Called by the transport, by a thread of its own or the one that drives it."""
        with self._lock:
            self._has_landed = True
            self._work.notify()

    def _collect(self) -> None:
        """Ends what is done, whatever its place: a transport may finish the pieces of one window in any order."""
        done = [one for one in self._under_way if self._transport.is_done(one[1])]
        for one in done:
            piece, handle = one
            self._transport.finish(handle, self._buffers[piece])
            now = time.perf_counter()
            with self._lock:
                self._under_way.remove(one)
                if not self._under_way:
                    self.counters.arrived(now)
                self._took[self._names[piece]] = now - max(self.issued_at[piece], self._last_end)
                self._last_end = now
                self.completed_at[piece] = now
                self._completed[piece] = 1
                self._left -= 1
                if self._left == 0 or piece in self._awaited:
                    self._done.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def go_to_own_cpus() -> None:
    """Moves the calling thread where the placement has it: it is born with the mask of the one that makes it."""
    given = next((os.environ[name] for name in CPUS if os.environ.get(name)), "")
    if given and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {int(cpu) for cpu in given.split(",")})
        except (OSError, ValueError) as error:  # CPUs that this job has not: slower, and no reason to fail
            print(f"lockstep: the exchange thread stays where it is, it cannot go to CPUs {given}: {error}",
                  file=sys.stderr)  # fmt: skip
