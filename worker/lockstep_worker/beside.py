"""What runs beside one rank's training: the node's writer, the watch over its link, the search, the meeting's part.

Standard library only. None of it may stop a training: a node without one of them trains all the same.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
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
LARGEST = 1 << 20
"""Bytes asked for in a socket's buffer: a verdict on many threads is one packet. The kernel gives what it allows."""


class Beside:
    """One rank's helpers, from the first to the last."""

    def __init__(self, run: Path, world: World) -> None:
        self._run = run
        self._world = world
        self._writer: Helper | None = None
        self._held: socket.socket | None = None
        self.output: Output | None = None
        self.watch: Helper | None = None
        self.place: MeetingPlace | None = None

    def start_writer(self, own: Claim, path: Path) -> None:
        """Starts the node's writer; a node without one trains all the same, and its records are lost."""
        arguments = ["--run", str(self._run), "--attempt", str(own.attempt)]
        arguments += ["--node", self._world.node, "--socket", str(path)]
        self._writer = Helper("lockstep_worker.writer", arguments, clean(os.environ), stdout=subprocess.PIPE)
        ready = self._writer.process.stdout
        if ready is None or ready.readline() != b"ready\n":
            print(
                "lockstep: the writer did not start, so nothing of this node is reported", file=sys.stderr, flush=True
            )

    def hold_writer(self, path: Path) -> None:
        """Keeps the node's writer until this rank's training has ended, even one that first reports at its very end.

        The writer ends once local rank 0 is done and nobody is connected any more; so the wrapper is.
        """
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
        if self._held is not None:
            try:
                self._held.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError as error:
                print(f"lockstep: rank {self._world.rank}: {what} is not recorded: {error}", file=sys.stderr)

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
