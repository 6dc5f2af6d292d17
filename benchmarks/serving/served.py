"""A real ``lockstep serve`` for a benchmark: one process with a home of its own, and its address and token."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lockstep_slurm.errors import LockstepError

READY_SECONDS = 60.0


class ServedError(LockstepError):
    """The service under measurement did not come up or answered what it should not; the message has its words."""


@dataclass(frozen=True)
class Served:
    """A service that runs."""

    home: Path
    url: str
    token: str
    pid: int

    @property
    def headers(self) -> dict[str, str]:
        """What every request needs."""
        return {"Authorization": f"Bearer {self.token}"}

    def connect(self) -> Caller:
        """A connection of its own, kept open over many requests; for one thread."""
        return Caller(self)


class Caller:
    """One kept connection: the standard library's client, since its cost is counted with the service's."""

    def __init__(self, served: Served) -> None:
        self._headers = served.headers
        address = urlsplit(served.url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request under ``/api/v1``."""
        self._connection.request(method, f"/api/v1{path}", body, self._headers | dict(headers or {}))
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def post(self, path: str, document: Mapping[str, object]) -> bytes:
        """The answer to a JSON document; ``ServedError`` where it is none of 2xx."""
        status, body = self.call("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})
        if not 200 <= status < 300:
            raise ServedError(f"POST {path}: {status} {body.decode(errors='replace')[:500]}")
        return body

    def close(self) -> None:
        """Closes it."""
        self._connection.close()


@contextmanager
def served(
    home: Path,
    *,
    client: str,
    slurm_conf: Path | None = None,
    database_url: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Runs ``lockstep serve`` until the block ends. ``settings``: further ``LOCKSTEP_*`` variables.

    What it prints is in ``home/serve.log``. ``ServedError`` when it is not ready within a minute.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "LOCKSTEP_HOME": str(home),
        **(settings or {}),
    }
    if slurm_conf is not None:
        environment["SLURM_CONF"] = str(slurm_conf)
    if database_url is not None:
        environment["LOCKSTEP_DATABASE_URL"] = database_url
    log = home / "serve.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["lockstep", "serve", "--port", "0", "--client", client],
            env=environment, cwd=home, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        url = _ready(process, home / "service.json", log)
        token = (home / "token").read_text(encoding="utf-8").strip()
        yield Served(home, url, token, process.pid)
        if process.poll() is not None:
            raise ServedError(f"the service ended while it was measured:\n{_end_of(log)}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], note: Path, log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if note.exists():
            found = json.loads(note.read_text(encoding="utf-8"))
            if found["pid"] == process.pid and _answers(f"{found['url']}/readyz"):
                return str(found["url"])
        time.sleep(0.05)
    raise ServedError(f"the service did not come up:\n{_end_of(log)}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - an address that the service wrote down
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]
