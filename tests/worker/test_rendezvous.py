"""The rendezvous answers those who know the nonce, on one address alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.rundir import rendezvous_file
from lockstep_worker.ports import bound
from lockstep_worker.processes import Helper
from lockstep_worker.rendezvous import Opening
from support.ranks import base_environment


@pytest.fixture
def published(make_run: Callable[..., Path]) -> Iterator[dict[str, Any]]:
    """A rendezvous for two ranks on two nodes that are one machine, and what it published."""
    run = make_run(model="digits-mlp", data="digits")
    with bound("127.0.0.1", None) as listening:
        helper = Helper(
            "lockstep_worker.rendezvous",
            ["--run", str(run), "--attempt", "1"],
            base_environment(),
            stdout=subprocess.DEVNULL,
            descriptors=[listening.fileno()],
        )
        opening = Opening(
            descriptor=listening.fileno(),
            allowed=("127.0.0.1",),
            tasks_by_node={"node1": 1, "node2": 1},
            apart=False,
            further={"slurm_job_id": 7, "restart_count": 0},
        )
    helper.tell(opening.line())
    path, ends = rendezvous_file(run, 1), time.monotonic() + 60
    while not path.exists():
        helper.check()
        assert time.monotonic() < ends
        time.sleep(0.02)
    yield {**json.loads(path.read_text()), "file": path, "pid": helper.pid}
    helper.end(finish=False, patience=20)
    assert helper.process.returncode == 0


def ask(published: dict[str, Any], method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", published["port"], timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer


def test_who_knows_the_nonce_can_leave_and_find_values(published: dict[str, Any]) -> None:
    prefix = f"/{published['nonce']}:{published['port']}"
    assert ask(published, "PUT", f"{prefix}/global/0", b"an address")[0] == 200
    assert ask(published, "GET", f"{prefix}/global/0") == (200, b"an address")
    assert ask(published, "GET", f"{prefix}/global/1")[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
@pytest.mark.parametrize("prefix", ["", "/0123456789abcdef0123456789abcdef:{port}", "/{nonce}"])
def test_nobody_else_is_served(published: dict[str, Any], method: str, prefix: str) -> None:
    own = f"/{published['nonce']}:{published['port']}"
    ask(published, "PUT", f"{own}/global/0", b"an address")
    path = prefix.format(port=published["port"], nonce=published["nonce"]) + "/global/0"
    assert ask(published, method, path, b"another" if method == "PUT" else None)[0] == 403
    assert ask(published, "GET", f"{own}/global/0") == (200, b"an address")


def test_no_file_is_served_and_no_large_value_taken(published: dict[str, Any]) -> None:
    own = f"/{published['nonce']}:{published['port']}"
    assert ask(published, "HEAD", f"{own}/etc/passwd")[0] == 405
    with pytest.raises((AssertionError, OSError)):
        assert ask(published, "PUT", f"{own}/global/0", b"x" * (2 << 20))[0] == 200


def test_it_listens_on_its_one_address(published: dict[str, Any]) -> None:
    assert published["address"] == "127.0.0.1"
    listening = {
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{published['port']:04X}")
    }
    assert listening == {f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}:{published['port']:04X}"}


def test_what_it_published_is_its_owners_alone(published: dict[str, Any]) -> None:
    assert stat.S_IMODE(published["file"].stat().st_mode) == 0o600
    assert published["slurm_job_id"] == 7
    # Nor is the nonce on a command line, which every user of a node can read.
    assert published["nonce"].encode() not in Path(f"/proc/{published['pid']}/cmdline").read_bytes()


def test_clients_that_never_finish_hold_nobody_up(published: dict[str, Any]) -> None:
    own = f"/{published['nonce']}:{published['port']}"
    with contextlib.ExitStack() as stack:
        # More than it keeps open at once; each has sent half of a request, one with the right nonce.
        for number in range(300):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", published["port"]), timeout=10))
            slow.sendall(b"PUT / HTTP/1.1\r\nContent-Le" if number else f"PUT {own}/global/0 HTTP/1.1\r\n".encode())
        assert ask(published, "PUT", f"{own}/global/1", b"an address")[0] == 200
        assert ask(published, "GET", f"{own}/global/1") == (200, b"an address")
        assert ask(published, "GET", f"{own}/global/0")[0] == 404
        # Nor are they kept: the one that came last is hung up on as well.
        slow.settimeout(60)
        assert slow.recv(1) == b""


def test_half_a_value_is_none(published: dict[str, Any]) -> None:
    own = f"/{published['nonce']}:{published['port']}"
    with socket.create_connection(("127.0.0.1", published["port"]), timeout=10) as half:
        half.sendall(f"PUT {own}/global/0 HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345".encode())
        half.shutdown(socket.SHUT_WR)
        assert half.recv(100) == b""
    assert ask(published, "GET", f"{own}/global/0")[0] == 404


@pytest.mark.parametrize("path", ["/global", "/global/", "//0", "/global/0/1", "/"])
def test_a_path_that_names_no_key_is_refused(published: dict[str, Any], path: str) -> None:
    assert ask(published, "GET", f"/{published['nonce']}:{published['port']}{path}")[0] == 400


def test_a_foreign_address_is_refused_whatever_it_knows(published: dict[str, Any]) -> None:
    own = f"/{published['nonce']}:{published['port']}"
    ask(published, "PUT", f"{own}/global/0", b"an address")
    for _ in range(3):
        with socket.socket() as foreign:
            foreign.settimeout(10)
            foreign.bind(("127.0.0.9", 0))
            foreign.connect(("127.0.0.1", published["port"]))
            # It is refused before it has said anything.
            assert foreign.recv(100).startswith(b"HTTP/1.1 403 ")
    assert ask(published, "GET", f"{own}/global/0") == (200, b"an address")
