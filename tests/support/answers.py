"""What stands where the service should: an HTTP server that answers as the test says, and counts what it is asked."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest

from support.lockstep import Lockstep

Json = dict[str, Any]


class Answer(NamedTuple):
    """An answer to a GET."""

    status: int
    media_type: str
    body: str
    headers: tuple[tuple[str, str], ...] = ()


HTML = Answer(200, "text/html; charset=utf-8", "<!doctype html><title>Sign in</title>")
BAD_GATEWAY = Answer(502, "text/html", "<h1>502 Bad Gateway</h1>")


def of(value: object, status: int = 200) -> Answer:
    """In JSON."""
    return Answer(status, "application/json", json.dumps(value))


def problem(status: int, detail: str, **headers: str) -> Answer:
    """The service's own no."""
    body = json.dumps({"type": "about:blank", "title": "No", "status": status, "detail": detail, "errors": []})
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(status, "application/problem+json", body, named)


def stream(*events: tuple[str, Json]) -> Answer:
    """Server-sent events, after which the stream is closed."""
    told = (
        f"event: {name}\nid: {number}-0-0-0\ndata: {json.dumps(data)}\n\n" for number, (name, data) in enumerate(events)
    )
    return Answer(200, "text/event-stream", "".join(told))


class Asked(NamedTuple):
    """A request that came."""

    path: str
    time: float


class Server(ThreadingHTTPServer):
    """Answers a GET of a path, asked for the ``n``-th time (from 0), by ``answer(path, n)``."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[Asked] = []

    def of(self, path: str) -> list[Asked]:
        """The requests for this path, oldest first."""
        return [one for one in self.asked if one.path == path]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/v1")
        self.server.asked.append(Asked(path, time.monotonic()))
        found = self.server.answer(path, len(self.server.of(path)) - 1)
        body = found.body.encode()
        self.send_response(found.status)
        for name, value in (("Content-Type", found.media_type), ("Content-Length", str(len(body))), *found.headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(
    home: Path, answer: Callable[[str, int], Answer], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[Server, Lockstep]]:
    """Such a server, and a command line whose service it is said to be."""
    server = Server(answer)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    ours = Lockstep(home, None)
    (home / "token").write_text("t\n")
    ours.environment["LOCKSTEP_URL"] = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    try:
        yield server, ours
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def command_here(ours: Lockstep, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command run in this process, where a test has shortened a deadline of its."""
    from lockstep_slurm.cli.main import main

    for name in ("LOCKSTEP_URL", "LOCKSTEP_HOME"):
        monkeypatch.setenv(name, ours.environment[name])
    monkeypatch.setattr("sys.argv", ["lockstep", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return 0 if code is None else int(code)
