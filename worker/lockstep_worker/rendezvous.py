"""The rendezvous: where the ranks tell each other their addresses; a process of its own beside rank 0.

Horovod's own launcher binds every interface and serves anybody, so that any user of the cluster could divert a job.
This one binds one address and serves the addresses of the job's nodes, and of those only who knows the nonce, which
only the run directory carries (0600). Standard library only: a job without Horovod meets here as well.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import rendezvous_file
from lockstep_slurm.job.writing import write_whole
from lockstep_worker.server import Server
from lockstep_worker.writer import CLOSING

LINGER = 30.0
"""Seconds that the others have to come, and those that came to take their leave, once rank 0 is done."""


@dataclass(frozen=True)
class Opening:
    """What the rendezvous is told at its start, as one line of JSON on its standard input."""

    descriptor: int
    """The socket that it inherits: bound already, so that rank 0 itself says why none was to be had."""
    allowed: tuple[str, ...]
    """The addresses that may connect."""
    tasks_by_node: dict[str, int]
    """Ranks of each node, in the order of ranks."""
    apart: bool
    """Whether the nodes are different machines."""
    further: dict[str, Any]
    """More keys of the published file."""

    def line(self) -> bytes:
        """As it is written to the rendezvous's standard input."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Publishes where it listens, then serves until its standard input ends (rank 0's wrapper is done, or died)."""
    parser = argparse.ArgumentParser(
        prog="lockstep_worker.rendezvous", description="Where the ranks of an attempt meet."
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0) as source:
        line = source.readline()
        if not line.endswith(b"\n"):
            return 0  # the wrapper died before it had said anything
        server = _published(options.run, options.attempt, Opening(**json.loads(line)))
        while word := source.read(64):
            if word == CLOSING:
                server.all_came.wait(LINGER)
                if server.visited:
                    server.all_left.wait(LINGER)
                break
    server.shutdown()
    return 0


def _published(run: Path, attempt: int, opening: Opening) -> Server:
    nonce = secrets.token_hex(16)
    server = Server(
        socket.socket(fileno=opening.descriptor),
        nonce,
        allowed=opening.allowed,
        tasks_by_node=opening.tasks_by_node,
        apart=opening.apart,
    )
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    published = {"version": 1, "address": server.server_name, "port": server.server_port, "nonce": nonce}
    write_whole(rendezvous_file(run, attempt), json.dumps({**published, **opening.further}))
    return server


if __name__ == "__main__":
    sys.exit(main())
