"""MLflow's tracking server, for ``ingesting``: one process, on SQLite or PostgreSQL, in an environment of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.environments import PeerError

REQUIREMENTS = ("mlflow==3.*", "psycopg[binary]==3.*")
READY_SECONDS = 180.0
_PRAGMAS = """
import sys
from mlflow.store.db.utils import create_sqlalchemy_engine
from sqlalchemy import text
with create_sqlalchemy_engine(sys.argv[1]).connect() as connection:
    print(*(connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")))
"""
_SYNCHRONOUS = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}


@dataclass
class Mlflow:
    """A server that runs, and a kept connection to it."""

    connection: http.client.HTTPConnection
    run: str = field(default="")

    def begin(self) -> None:
        """Begins a run, which what is logged belongs to."""
        body = {"experiment_id": "0", "start_time": 1}
        self.run = self._call("POST", "runs/create", json.dumps(body).encode())["run"]["info"]["run_id"]

    def body(self, metrics: Sequence[tuple[str, float, int]]) -> bytes:
        """A ``log-batch`` request of (name, value, step), made beforehand: no arm pays for a client's JSON."""
        document = {
            "run_id": self.run,
            "metrics": [
                {"key": name, "value": value, "timestamp": 1_764_000_000_000 + step, "step": step}
                for name, value, step in metrics
            ],
        }
        return json.dumps(document).encode()

    def log_batch(self, body: bytes) -> None:
        """One request; returns once it is answered."""
        self._call("POST", "runs/log-batch", body)

    def count(self) -> int:
        """How many steps of the newest metric it has, of which it has the same number of each."""
        answer = self._call("GET", f"runs/get?run_id={self.run}", None)
        total = 0
        for metric in answer["run"]["data"]["metrics"]:
            page: str | None = ""
            while page is not None:
                query = f"run_id={self.run}&metric_key={metric['key']}&max_results=25000"
                found = self._call("GET", f"metrics/get-history?{query}&page_token={page}", None)
                total += len(found.get("metrics", ()))
                page = found.get("next_page_token") or None
        return total

    def _call(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        self.connection.request(method, f"/api/2.0/mlflow/{path}", body, headers)
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise PeerError(f"MLflow answered {method} {path} with {answer.status}: {said[:300]!r}")
        found: dict[str, Any] = json.loads(said)
        return found


@contextmanager
def serving(python: Path, folder: Path, database_url: str) -> Iterator[Mlflow]:
    """Runs ``mlflow server`` with one worker until the block ends; ``PeerError`` when it does not come up."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": f"{python.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    argv = [
        str(python.parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", database_url, "--default-artifact-root", str(folder / "artifacts"),
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, env=environment, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        deadline = time.monotonic() + READY_SECONDS
        while not _ready(connection):
            if time.monotonic() > deadline or process.poll() is not None:
                raise PeerError(f"MLflow did not come up: {log.read_text(encoding='utf-8', errors='replace')[-800:]}")
            time.sleep(0.2)
        yield Mlflow(connection)
        connection.close()
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its worker, which is a child of its own; there may be none any more."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
        return


def _ready(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read() == b"OK"
    except OSError:
        connection.close()
        return False


def durability(python: Path, database_url: str) -> str:
    """How its SQLite is set on a connection that it makes."""
    done = subprocess.run(
        [str(python), "-c", _PRAGMAS, database_url], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        raise PeerError(f"MLflow's database cannot be asked: {done.stderr[-500:]}")
    journal, synchronous = done.stdout.split()[-2:]
    return f"journal_mode {journal}, synchronous {_SYNCHRONOUS.get(synchronous, synchronous)}"
