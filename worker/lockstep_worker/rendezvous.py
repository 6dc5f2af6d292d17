"""The rendezvous: where Horovod's ranks tell each other their addresses; a process of its own beside rank 0.

Horovod's own launcher binds every interface and serves anybody, so that any user of the cluster could divert a job.
This one binds one address and answers only those who know the nonce, which only the run directory carries (0600).
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import secrets
import signal
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

from lockstep_slurm.job.rundir import rendezvous_file, write_whole
from lockstep_worker.writer import CLOSING

BODY_LIMIT = 1 << 20
"""Bytes of one value; Horovod's are addresses, of some hundred."""
LINGER = 30.0
"""Seconds that the last ranks have to take their leave once rank 0 is done."""


class Server(RendezvousHTTPServer):  # type: ignore[misc]
    """Horovod's rendezvous server on one address, for those who know ``nonce``."""

    daemon_threads = True

    def __init__(self, address: str, nonce: str, hosts: list[tuple[str, int]]) -> None:
        super().__init__((address, 0), Handler, 0)
        size = sum(slots for _, slots in hosts)
        self.init(get_host_assignments([HostInfo(name, slots) for name, slots in hosts], size))
        # Horovod 0.28.1 sends no secret, but it builds each URL as "http://" + ADDR + ":" + PORT + "/scope/key". With
        # ADDR = "address:port/nonce" the path becomes "/nonce:port/scope/key", and the nonce travels in it.
        self.prefix = f"/{nonce}:{self.server_port}/"
        self.all_left = threading.Event()
        self.visited = False
        """Whether anybody has come: a script without Horovod never does, and nobody waits for its leave."""
        self._size = size
        self._left: set[str] = set()

    def server_bind(self) -> None:
        """Binds, without the base class's look-up of its own name: a name server that is away costs 5 s."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def rank_left(self, rank: str) -> None:
        """Notes that a rank has taken its leave of the whole job."""
        self._left.add(rank)
        if len(self._left) == self._size:
            self.all_left.set()


class Handler(RendezvousHandler):  # type: ignore[misc]
    """Refuses every request that does not start with the nonce, before any of Horovod's own code sees it."""

    server: Server
    path: str

    def parse_request(self) -> bool:
        """Checks the nonce and takes it off the path; the base class's parsing comes first."""
        if not super().parse_request():
            return False
        prefix = self.server.prefix
        given = self.path[: len(prefix)]
        length = self.headers.get("Content-Length", "0")
        if not hmac.compare_digest(given.encode(errors="replace"), prefix.encode()):
            self.send_error(403)
        elif self.command not in ("GET", "PUT", "DELETE"):
            self.send_error(405)  # the base of Horovod's handler would serve files to HEAD
        elif not length.isdecimal() or int(length) > BODY_LIMIT:
            self.send_error(413)
        else:
            self.server.visited = True
            self.path = "/" + self.path[len(prefix) :]
            return True
        return False

    def do_DELETE(self) -> None:  # noqa: N802 - http.server's name
        """A rank takes its leave."""
        _, _, rest = self.path.partition("/")
        scope, _, key = rest.partition("/")
        super().do_DELETE()
        if scope == "global":
            self.server.rank_left(key)


def main() -> int:
    """Publishes where it listens, then serves until its standard input ends (rank 0's wrapper is done, or died)."""
    parser = argparse.ArgumentParser(
        prog="lockstep_worker.rendezvous", description="Where the ranks of an attempt meet."
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--hosts", type=json.loads, required=True, help='[["node1", 2], ...] in the order of ranks')
    parser.add_argument("--execution", type=json.loads, required=True, help="further keys of the published file")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nonce = secrets.token_hex(16)
    server = Server(options.address, nonce, [(str(name), int(slots)) for name, slots in options.hosts])
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    published: dict[str, Any] = {"version": 1, "address": options.address, "port": server.server_port, "nonce": nonce}
    write_whole(rendezvous_file(options.run, options.attempt), json.dumps({**published, **options.execution}))
    while word := os.read(sys.stdin.fileno(), 64):
        if word == CLOSING:
            if server.visited:
                server.all_left.wait(LINGER)
            break
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
