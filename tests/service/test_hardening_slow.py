"""Clients that are slow on purpose, against a real server: they are not waited for, and nobody waits for them."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from lockstep_service.auth.service import token_hash
from support.lockstep import wait_for

from .conftest import SPEC, HandMadeRun

HEAD, READ, GRACE = 4.0, 4.0, 4.0
"""Seconds; the service's own are longer (lockstep_service.connections, .guards)."""
PROGRAM = f"""
import sys
from pathlib import Path
from lockstep_service import connections, guards, server
from lockstep_service.settings import Settings
connections.Connection.head_seconds, connections.Connection.read_seconds, guards.GRACE_SECONDS = {HEAD}, {READ}, {GRACE}
sys.exit(server.run(Settings(home=Path(sys.argv[1]), client="local", dispatch=False)))
"""
CROWD = 1_100
"""More than the files that a process may usually have open."""


@dataclass
class Served:
    """A service, its process, and a client with its token."""

    home: Path
    pid: int
    port: int
    client: httpx.Client

    def connect(self, first: bytes = b"", *, buffer: int | None = None) -> socket.socket:
        """A connection on which these bytes were sent; ``buffer``: of what it has not read."""
        made = socket.socket()
        if buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        made.settimeout(30)
        made.connect(("127.0.0.1", self.port))
        made.sendall(first)
        return made

    def open_sockets(self) -> int:
        """How many sockets the service holds."""
        count = 0
        for one in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed in this moment
                count += os.readlink(one).startswith("socket:")  # noqa: PTH115 - no path
        return count

    def memory(self, what: str) -> int:
        """Bytes of the process's memory, by a name of /proc/PID/status."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{what}:")))

    def answers_at_once(self) -> None:
        """Somebody else's requests are answered as ever."""
        took = []
        for _ in range(20):
            began = time.monotonic()
            self.client.get("/jobs").raise_for_status()
            took.append(time.monotonic() - began)
        assert sorted(took)[10] < 3, took  # behind the crowd it would be the patience with each of them


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served") / "home"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(home)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        note = home / "service.json"
        url = wait_for("the service", lambda: json.loads(note.read_text())["url"] if note.exists() else None)
        headers = {"Authorization": f"Bearer {(home / 'token').read_text().strip()}"}
        with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=30) as client:
            yield Served(home, process.pid, int(url.rpartition(":")[2]), client)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > CROWD + 200, f"this user may have {hard} files open"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CROWD + 200), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass  # it hung up with bytes of ours unread
    return found


def drip(connection: socket.socket, piece: bytes, seconds: float) -> bool:
    """Sends a piece every fifth of a second; whether the other side hung up meanwhile."""
    deadline = time.monotonic() + seconds
    connection.settimeout(0.2)
    while time.monotonic() < deadline:
        try:
            connection.sendall(piece)
            if not connection.recv(65536):
                return True
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return True
    return False


def test_a_crowd_that_never_finishes_its_requests_keeps_nobody_out(served: Served, many_files: None) -> None:
    before = served.open_sockets()
    with ExitStack() as crowd:
        for number in range(CROWD):
            crowd.enter_context(served.connect(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " if number % 2 else b""))
        served.answers_at_once()
        wait_for("the crowd to be sent away", lambda: served.open_sockets() <= before + 2, 60)
    served.answers_at_once()


@pytest.mark.parametrize("piece", [b"x", b"\r\n"])
def test_a_byte_now_and_then_is_no_request(served: Served, piece: bytes) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with served.connect(b"GET / HTTP/1.1\r\nX-A: " if piece == b"x" else whole) as slow:
        assert drip(slow, piece, 30)
    served.answers_at_once()


def test_a_head_may_not_have_any_length(served: Served) -> None:
    for first in (b"GET /" + b"a" * 200_000, b"GET / HTTP/1.1\r\nX-A: " + b"a" * 200_000):
        with served.connect(first) as long:
            # The answer may be lost: what hangs up with bytes unread resets the connection.
            assert received(long).partition(b"\r\n")[0] in {b"HTTP/1.1 431 Request Header Fields Too Large", b""}
            assert drip(long, b"a" * 65536, 10), "it still listens"


def test_a_body_that_does_not_come_is_answered_and_the_connection_ends(served: Served) -> None:
    head = b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(served.connect(head + b'Content-Length: 1000\r\n\r\n{"token": "')) for _ in range(60)
        ]
        served.answers_at_once()
        for slow in crowd:
            answer = received(slow)
            assert b" 408 " in answer.partition(b"\r\n")[0]
            assert b"about:blank#too-slow" in answer
        served.answers_at_once()


def test_a_body_that_comes_in_good_time_is_taken_however_many_pieces_it_has(served: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for piece in (b'{"tok', b'en": ', b'"guess"}'):
            time.sleep(0.3)
            yield piece

    url = f"http://127.0.0.1:{served.port}/api/v1/session"
    answer = httpx.post(url, content=pieces(), headers={"Content-Type": "application/json"}, timeout=30)
    assert answer.status_code == 401


def test_who_has_been_answered_may_not_go_on_sending_for_ever(served: Served) -> None:
    head = b"POST /api/v1/jobs/x/cancel HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n"
    with served.connect(head) as slow:
        assert slow.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert drip(slow, b"x", 30)


def test_a_stranger_may_send_little_and_who_is_known_more(served: Served) -> None:
    body = b'{"token": "' + b"x" * 100_000 + b'"}'
    url = f"http://127.0.0.1:{served.port}/api/v1/session"
    headers = {"Content-Type": "application/json"}
    assert httpx.post(url, content=body, headers=headers, timeout=30).status_code == 413
    assert httpx.post(url, content=iter([body]), headers=headers, timeout=30).status_code == 413
    fake = headers | {"Authorization": "Bearer guess", "Cookie": "lockstep_0=x"}
    assert httpx.post(url, content=iter([body]), headers=fake, timeout=30).status_code == 413
    known = served.client.post("/session", content=iter([body]), headers=headers)
    assert known.status_code == 422  # read, and found to be no token
    too_long = served.client.post("/jobs", content=iter([b"x" * 65536] * 20), headers=headers)
    assert (too_long.status_code, too_long.json()["type"]) == (413, "about:blank#too-large")


def test_who_does_not_read_the_answer_is_left_after_a_while(
    served: Served, made_by_hand: Callable[[], HandMadeRun]
) -> None:
    hand = made_by_hand()
    (hand.run / "logs" / "job-1.log").write_bytes(os.urandom(1 << 20))  # nothing that gzip makes small
    served.client.post("/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status()
    before = served.open_sockets()
    asking = (
        f"GET /api/v1/jobs/{hand.id}/logs?limit=1048576 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {served.client.headers['Authorization']}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(served.connect(asking * 4, buffer=4096))
        wait_for("all to be there", lambda: served.open_sockets() >= before + 20, 60)
        served.answers_at_once()
        wait_for("those who do not read to be left", lambda: served.open_sockets() <= before + 2, 60)


def test_many_small_bodies_that_unpack_to_much_are_refused_in_little_memory(served: Served) -> None:
    job = served.client.post("/jobs", json=SPEC).raise_for_status().json()["id"]
    with closing(sqlite3.connect(served.home / "lockstep.db", timeout=30)) as database, database:
        database.execute("UPDATE jobs SET token_hash = ?", (token_hash("the job's token"),))
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(300)]) + packer.flush()
    assert len(bomb) < 1 << 20
    headers = {"Authorization": "Bearer the job's token", "Content-Encoding": "gzip"}
    before = served.memory("VmRSS")
    url = f"{served.client.base_url}jobs/{job}/records"
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda body: httpx.post(url, content=body, headers=headers, timeout=120).status_code, [bomb] * 32)
        )
    assert set(answers) <= {413, 429}
    assert 413 in answers
    # Sixteen at once would unpack to 4.8 GB; what one body may unpack to is 16 MB.
    assert served.memory("VmHWM") - before < 500 << 20
    served.answers_at_once()


def test_no_path_leads_out_of_the_dashboards_folder(served: Served) -> None:
    """As bytes on the wire: clients tidy a path up before they send it."""
    for path in (
        "/../../../../../../etc/passwd", "/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd", "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/assets/../../../../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/%2e%2e/pyproject.toml",
        "/..\\..\\etc\\passwd",
        "/.%00./etc/passwd", "/../package.json", "/%2e%2e/package.json", "/api/v1/../../../etc/passwd", "*",
        "/.git/config",
    ):  # fmt: skip
        with served.connect(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()) as raw:
            answer = received(raw)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 404", b"HTTP/1.1 400")), (path, answer[:200])
        assert not any(mark in answer for mark in (b"root:x:", b"lockstep-web", b"[project]", b"[core]")), path
