"""What runs beside one rank's training: the node's writer, the watch over its link, the search, the meeting's part.

Standard library only. None of it may stop a training: a node without one of them trains all the same.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim
from lockstep_worker.environment import clean
from lockstep_worker.meeting import MeetingPlace
from lockstep_worker.output import Output
from lockstep_worker.processes import Helper, end_descendants
from lockstep_worker.world import World

SHIPPING_PATIENCE = 20.0
"""Seconds that a writer has to put away what it has, once the training has ended badly."""
WRITERS = 3
"""Writers that are started in place of one that has died, at most: whatever ends each of them is not mended by more."""
READY_WITHIN = 10.0
"""Seconds that the wrapper waits for such a one; it has nothing else to do then than to wait for its training."""
NOTE = "the use of CPUs"
"""What is lost without the note that a training has started."""
HOLD_EVERY = 2.0
"""Seconds between two looks at whether the writer that a wrapper is connected to is still there."""
LARGEST = 1 << 20
"""Bytes asked for in a socket's buffer: a verdict on many threads is one packet. The kernel gives what it allows."""


class Beside:
    """One rank's helpers, from the first to the last."""

    def __init__(self, run: Path, world: World) -> None:
        self._run = run
        self._world = world
        self._writer: Helper | None = None
        self._writers = 0
        self._arguments: list[str] = []
        self._started: Callable[[], bytes] | None = None
        self._held: socket.socket | None = None
        self._path = Path()
        self._lock = threading.RLock()  # of what is told; re-entrant: a signal's handler may interrupt the telling
        self.output: Output | None = None
        self.watch: Helper | None = None
        self.place: MeetingPlace | None = None

    def start_writer(self, own: Claim, path: Path) -> None:
        """Starts the node's writer; a node without one trains all the same, and its records are lost."""
        arguments = ["--run", str(self._run), "--attempt", str(own.attempt)]
        self._arguments = [*arguments, "--node", self._world.node, "--socket", str(path)]
        self._writer = Helper("lockstep_worker.writer", self._arguments, clean(os.environ), stdout=subprocess.PIPE)
        ready = self._writer.process.stdout
        if ready is None or ready.readline() != b"ready\n":
            print(
                "lockstep: the writer did not start, so nothing of this node is reported", file=sys.stderr, flush=True
            )

    def look_after_writer(self, path: Path) -> None:
        """Starts another writer where the node's has died: ranks send it what the other had not yet written.

        Called when any child has ended, by a signal's handler.
        """
        if self._writer is None or self._writer.process.poll() is None:
            return
        how, again = self._writer.process.returncode, self._writers < WRITERS
        done = "it is started again" if again else "it is not started again, and what this node reports is lost"
        print(f"lockstep: the writer of {self._world.node} ended with {how}; {done}", file=sys.stderr, flush=True)
        self._writer.end(finish=False)
        self._writer = None
        if not again:
            return
        self._writers += 1
        try:
            arguments = [*self._arguments, "--again"]
            self._writer = Helper("lockstep_worker.writer", arguments, clean(os.environ), stdout=subprocess.PIPE)
        except OSError as error:
            print(f"lockstep: no writer can be started: {error}", file=sys.stderr, flush=True)
            return
        ready = self._writer.process.stdout
        if ready is not None and select.select([ready], [], [], READY_WITHIN)[0]:
            self._hold_again(path)

    def _hold_again(self, path: Path) -> None:
        """Connects to the writer that took the place of one that has died, and tells it what it has to know."""
        with self._lock:
            if self._held is not None:
                self._held.close()
                self._held = None
            self.hold_writer(path)
            if self._held is None or self._started is None:
                return
            try:
                self._send(self._held, self._started())
            except OSError as error:
                who = f"rank {self._world.rank}"
                print(f"lockstep: {who}: {NOTE} is not recorded: {error}", file=sys.stderr, flush=True)

    def hold_on(self) -> None:
        """Connects to the writer that took the place of the one that this wrapper was connected to, if that has died.

        Called every ``HOLD_EVERY`` seconds: what this rank tells next may be the end of its training, hours later, and
        a writer that was never told of a training samples none.
        """
        with self._lock:
            if self._started is not None and (self._held is None or _has_hung_up(self._held)):
                self._hold_again(self._path)

    def hold_writer(self, path: Path) -> None:
        """Keeps the node's writer until this rank's training has ended, even one that first reports at its very end.

        The writer ends once local rank 0 is done and nobody is connected any more; so the wrapper is.
        """
        self._path = path
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
            connection.connect(str(path))
        except OSError:
            connection.close()  # a node without a writer trains all the same
        else:
            self._held = connection

    def tell(self, packet: bytes, what: str) -> None:
        """Sends the writer a note or a record, never waiting; one that it does not take costs ``what``, and a line."""
        with self._lock:
            if self._held is None:
                return
            try:
                try:
                    self._send(self._held, packet)
                except ConnectionError:  # of another rank's wrapper, which started another writer
                    self._hold_again(self._path)
                    if self._held is None:
                        raise
                    self._send(self._held, packet)
            except OSError as error:
                print(f"lockstep: rank {self._world.rank}: {what} is not recorded: {error}", file=sys.stderr)

    def tell_started(self, note: Callable[[], bytes]) -> None:
        """Tells the writer of this rank's training (``sampling.started``), and again, made anew, any later one."""
        self._started = note
        self.tell(note(), NOTE)

    @staticmethod
    def _send(connection: socket.socket, packet: bytes) -> None:
        connection.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def search(self, arguments: Mapping[str, Any] | None) -> None:
        """The training's output, where it comes through here, is passed on from now, and searched."""
        if self.output is not None:
            self.output.start(arguments, clean(os.environ))

    def pids(self) -> list[int]:
        """The process ids of all that."""
        rendezvous = self.place.rendezvous if self.place is not None else None
        helpers = (self._writer, self.output, self.watch, rendezvous)
        return [helper.pid for helper in helpers if helper is not None and helper.pid is not None]

    def end(self, *, ended_well: bool) -> None:
        """Ends what this rank started beside the training: after a good end each waits for the ranks it serves."""
        end_descendants(spared=self.pids())
        if self.output is not None:
            self.output.finish()
        if self.watch is not None:
            self.watch.end(finish=ended_well)
        if self._held is not None:
            self._held.close()
        if self.place is not None:
            self.place.close(finish=ended_well)
        if self._writer is not None:
            self._writer.end(finish=True, patience=None if ended_well else SHIPPING_PATIENCE)


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether nobody is at the other end any more, though something of it may still be there to be read."""
    look = select.poll()
    look.register(connection, 0)  # poll(2): POLLHUP is told unasked
    return bool(look.poll(0))
