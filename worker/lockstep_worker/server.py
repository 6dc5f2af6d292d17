"""The rendezvous's HTTP server: Horovod's key-value protocol, for the ranks of one job (standard library only).

``GET``, ``PUT`` and ``DELETE`` of ``/<nonce>:<port>/<scope>/<key>``: 200 with the value, 404 where there is none (yet).
Whoever is not of the allocation is refused before a byte of theirs is read; whoever does not know the nonce, before
a byte of the body is.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from lockstep_worker.listening import Announced, misplaced
from lockstep_worker.store import FullError, Store, scope_sizes

OWN_SCOPE = "lockstep"
"""The wrappers' scope: ``<rank>`` holds what ``listening.Announced`` says, ``finding`` what is wrong, if anything."""
READ_PATIENCE = 5.0
"""Seconds that a client may take for its next bytes."""
CONNECTION_PATIENCE = 15.0
"""Seconds that a connection may last, however its client drips."""
WAITING = 0.5
"""Seconds that an answer waits for a value that a rank will leave: Horovod asks again every 10 ms otherwise."""
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server(ThreadingMixIn, HTTPServer):
    """Serves on ``bound``, a bound socket, those who know ``nonce`` and connect from one of ``allowed``.

    ``tasks_by_node``: the ranks of each node; ``apart``: whether the nodes are different machines, where a Horovod that
    listens on another interface than it was told is refused, not only mentioned.
    """

    daemon_threads = True
    # 1,000 ranks come at once.
    request_queue_size = 4096

    def __init__(
        self,
        bound: socket.socket,
        nonce: str,
        *,
        allowed: Collection[str],
        tasks_by_node: Mapping[str, int],
        apart: bool,
    ) -> None:
        address, port = bound.getsockname()
        super().__init__((address, port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        # HTTPServer's own server_bind looks its name up; a name server that is away would cost 5 s.
        self.server_name, self.server_port = address, port
        self.server_activate()
        # Horovod 0.28.1 sends no secret, but it builds each URL as "http://" + ADDR + ":" + PORT + "/scope/key". With
        # ADDR = "address:port/nonce" the path becomes "/nonce:port/scope/key", and the nonce travels in it.
        self.prefix = f"/{nonce}:{self.server_port}/"
        self.apart = apart
        self.size = sum(tasks_by_node.values())
        self.store = Store(scope_sizes(tasks_by_node))
        self.visited = False
        """Whether Horovod has come: a script without it never does, and nobody waits for its leave."""
        self.all_left = threading.Event()
        self.all_came = threading.Event()
        """Set once every rank's wrapper has been here: rank 0's training may be over before another rank has come."""
        self.announced: dict[int, Announced] = {}
        self._allowed = frozenset(allowed)
        self._left: set[str] = set()
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._ends_at: dict[socket.socket, float] = {}
        self._unproven: dict[socket.socket, None] = {}
        self._most_unproven = self.size + 256

    def say(self, sentence: str) -> None:
        """A line for the job's log, once, and not without end."""
        with self._lock:
            if sentence in self._said or len(self._said) >= 32:
                return
            self._said.add(sentence)
        print(f"lockstep: rendezvous: {sentence}", file=sys.stderr, flush=True)

    def rank_left(self, rank: str) -> None:
        """Notes that a rank has taken its leave of the whole job."""
        with self._lock:
            self._left.add(rank)
            if len(self._left) == self.size:
                self.all_left.set()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401 - typeshed's is a union
        """Refuses a foreign address here, in the accepting thread: it gets no thread of its own to hold."""
        if client_address[0] not in self._allowed:
            with contextlib.suppress(OSError):  # it may have gone
                request.settimeout(0)
                request.send(_FORBIDDEN)
            self.say(f"refused {client_address[0]}, which is no address of this job's nodes")
            return False
        with self._lock:
            if len(self._unproven) >= self._most_unproven:
                oldest = next(iter(self._unproven))  # a rank shows the nonce within milliseconds
                del self._unproven[oldest]
                _hang_up(oldest)
            self._unproven[request] = None
            self._ends_at[request] = time.monotonic() + CONNECTION_PATIENCE
        return True

    def prove(self, request: socket.socket) -> None:
        """Notes that a connection has shown the nonce: no stranger's makes it end."""
        with self._lock:
            self._unproven.pop(request, None)

    def service_actions(self) -> None:
        """Hangs up on those who have been connected for too long; called several times a second."""
        now = time.monotonic()
        with self._lock:
            for request, ends in self._ends_at.items():
                if now >= ends:
                    _hang_up(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """The end of a connection, however it came."""
        with self._lock:
            self._ends_at.pop(request, None)
            self._unproven.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """What a handler raised: a client that went away is nothing to speak of; anything else is a defect of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One client's requests."""

    # The client closes first then, and the port of the site's range does not rest for a minute after each request.
    protocol_version = "HTTP/1.1"
    timeout = READ_PATIENCE
    server: Server

    def parse_request(self) -> bool:
        """Checks method, nonce and size, after the base class's parsing and before anything is done."""
        if not super().parse_request():
            return False
        prefix = self.server.prefix
        given = self.path[: len(prefix)]
        length = self.headers.get("Content-Length", "0")
        scope, slash, key = self.path[len(prefix) :].partition("/")
        if not hmac.compare_digest(given.encode(errors="replace"), prefix.encode()):
            self._refuse(403)
        elif self.command not in ("GET", "PUT", "DELETE"):
            self._refuse(405)
        elif not (scope and slash and key) or "/" in key:
            self._refuse(400)
        elif "Transfer-Encoding" in self.headers or (self.command == "PUT" and "Content-Length" not in self.headers):
            # A request that ends within its headers looks like one without a body.
            self._refuse(411)
        elif not (length.isascii() and length.isdecimal()) or int(length) > self.server.store.value_limit:
            self._refuse(413)
        else:
            self.server.prove(self.connection)
            self.scope, self.key, self.length = scope, key, int(length)
            return True
        return False

    def do_GET(self) -> None:
        """A value."""
        self.rfile.read(self.length)
        # Only the addresses of a rank are waited for; Horovod also asks for names that it does without.
        found = self.server.store.get(self.scope, self.key, WAITING if self.key.isdecimal() else 0.0)
        self._answer(404 if found is None else 200, found or b"")

    def do_PUT(self) -> None:
        """A value to keep, once it has come whole."""
        value = self.rfile.read(self.length)
        if len(value) < self.length:
            self.close_connection = True
            return
        store = self.server.store
        try:
            if self.scope == OWN_SCOPE:
                self.server.announced[int(self.key)] = Announced.parse(json.loads(value))
                if len(self.server.announced) == self.server.size:
                    self.server.all_came.set()
            elif finding := self._finding(value):
                self.server.say(finding)
                if self.server.apart:
                    if store.get(OWN_SCOPE, "finding") is None:  # the first is as good as any
                        store.put(OWN_SCOPE, "finding", finding.encode())
                    self._answer(409)
                    return
            store.put(self.scope, self.key, value)
        except FullError:
            self.server.say(f"there is no room for {len(value)} more bytes at {self.scope}/{self.key}")
            self._answer(507)
        except (ValueError, LookupError, TypeError):
            self._answer(400)
        else:
            self.server.visited |= self.scope == "global"
            self._answer(200)

    def do_DELETE(self) -> None:
        """A rank takes its leave."""
        self.rfile.read(self.length)
        self.server.store.delete(self.scope, self.key)
        if self.scope == "global":
            self.server.rank_left(self.key)
        self._answer(200)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests are not logged: the nonce would be."""

    def _finding(self, value: bytes) -> str | None:
        announced = dict(self.server.announced)
        return misplaced(self.scope, self.key, value, announced) if len(announced) == self.server.size else None

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self._answer(status)


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        request.shutdown(socket.SHUT_RDWR)
