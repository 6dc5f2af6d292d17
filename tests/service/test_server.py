"""The service as a process: its notes, its end, and that being killed costs no record."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import HandMadeRun

Json = dict[str, Any]
PROGRAM = """
import sys
from pathlib import Path
from lockstep_service import server
from lockstep_service.settings import Settings
from lockstep_slurm.errors import LockstepError
try:
    sys.exit(server.run(Settings(home=Path(sys.argv[1]), client="local", ingest_seconds=0.05, exit_grace_seconds=1)))
except LockstepError as error:
    sys.exit(str(error))
"""


class Service:
    """A service process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[str] | None = None

    def start(self, umask: int = -1) -> httpx.Client:
        """Starts it and returns a client with its token once it is ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=umask,
        )
        note = self.home / "service.json"
        deadline = time.monotonic() + 60
        while not (note.exists() and json.loads(note.read_text())["pid"] == self.process.pid):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        url = json.loads(note.read_text())["url"]
        token = (self.home / "token").read_text().strip()
        return httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Ends it; its exit code and all that it printed."""
        assert self.process is not None
        self.process.send_signal(how)
        printed, _ = self.process.communicate(timeout=20)
        return self.process.returncode, printed


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    found = Service(tmp_path / "home")
    yield found
    if found.process is not None and found.process.poll() is None:
        found.end(signal.SIGKILL)


def test_says_where_it_is_while_it_is_and_ends_in_good_order_with_a_reader_connected(service: Service) -> None:
    with service.start() as client:
        home = service.home
        assert {(home / name).stat().st_mode & 0o777 for name in ("token", "session.key", "service.json")} == {0o600}
        assert home.stat().st_mode & 0o777 == 0o700
        connected, ended = threading.Event(), threading.Event()

        def follow() -> None:
            with client.stream("GET", "/events") as answer:
                connected.set()
                for _ in answer.iter_raw():
                    pass
            ended.set()

        reader = threading.Thread(target=follow)
        reader.start()
        assert connected.wait(10)
        began = time.monotonic()
        code, printed = service.end(signal.SIGTERM)
        took = time.monotonic() - began
        reader.join(5)
    assert ended.is_set()
    assert code == 0
    assert took < 5
    assert not (home / "service.json").exists()
    token = (home / "token").read_text().strip()
    assert token not in printed
    assert re.search(r"Dashboard: http://127\.0\.0\.1:\d+/#code=[\w-]{32}\n", printed)
    assert "ERROR" not in printed


def test_a_second_service_of_one_home_is_refused(service: Service) -> None:
    service.start().close()
    second = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(service.home)], capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "Another `lockstep serve`" in second.stderr
    assert service.process is not None
    assert f"process {service.process.pid}" in second.stderr


def test_killed_again_and_again_it_loses_no_record_and_doubles_none(
    service: Service, made_by_hand: Callable[[], HandMadeRun]
) -> None:
    hand = made_by_hand()
    hand.claim()
    total = 2000

    def write() -> None:
        for step in range(1, total + 1):
            hand.spool(*(hand.line(rank, step=step, loss=1 / step, samples_per_s=100.0) for rank in range(2)))
            if step % 25 == 0:
                time.sleep(0.01)  # a training's own pace

    writer = threading.Thread(target=write)
    with service.start() as client:
        writer.start()
        client.post("/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status()
    counts = [0]
    for _ in range(3):
        deadline = time.monotonic() + 30
        while writer.is_alive() and _count(service.home) <= counts[-1]:
            assert time.monotonic() < deadline
        service.end(signal.SIGKILL)
        counts.append(_count(service.home))
        service.start().close()
    writer.join()
    hand.end()
    with httpx.Client(timeout=30) as client:
        note = json.loads((service.home / "service.json").read_text())
        headers = {"Authorization": f"Bearer {(service.home / 'token').read_text().strip()}"}
        deadline = time.monotonic() + 60
        while client.get(f"{note['url']}/api/v1/jobs/{hand.id}", headers=headers).json()["phase"] != "ended well":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with client.stream("GET", f"{note['url']}/api/v1/jobs/{hand.id}/events", headers=headers) as events:
            assert "event: end" in "".join(events.iter_text())
    service.end(signal.SIGTERM)
    with closing(sqlite3.connect(service.home / "lockstep.db")) as database:
        bodies = database.execute("SELECT body FROM chunks").fetchall()
    stored = [json.loads(line) for (body,) in bodies for line in gzip.decompress(body).splitlines()]
    lines = [json.loads(line) for line in (hand.run / "spool" / "1" / "node1.jsonl").read_text().splitlines()]
    assert sorted(stored, key=_identity) == sorted(lines, key=_identity)
    assert len(stored) == 2 * total
    assert counts == sorted(counts)
    assert counts[1] < 2 * total


def _count(home: Path) -> int:
    with closing(sqlite3.connect(home / "lockstep.db")) as database:
        return int(database.execute("SELECT coalesce(sum(records), 0) FROM chunks").fetchone()[0])


def _identity(record: Json) -> tuple[int, int, int]:
    return record["attempt"], record["rank"], record["seq"]


def test_the_processes_own_files_are_its_users(service: Service) -> None:
    service.start().close()
    others = [path for path in service.home.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink()]
    assert others == []
    assert os.access(service.home / "lockstep.db", os.W_OK)


def test_a_job_has_the_umask_with_which_the_service_was_started(service: Service, tmp_path: Path) -> None:
    seen, setup = tmp_path / "seen", tmp_path / "setup.sh"
    setup.write_text(f"umask > '{seen}.partial'; mv '{seen}.partial' '{seen}'; return 1\n")
    spec = {"training": {"model": "digits-mlp", "data": "digits"}, "environment": {"setup_file": str(setup)}}
    with service.start(umask=0o027) as client:
        job = client.post("/jobs", json=spec).raise_for_status().json()
        deadline = time.monotonic() + 60
        while client.get(f"/jobs/{job['id']}").json()["phase"] != "ended badly":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert seen.read_text() == "0027\n"
    run = service.home / "runs" / job["id"]
    assert {path.stat().st_mode & 0o077 for path in (service.home, run, run / "exit", service.home / "token")} == {0}
