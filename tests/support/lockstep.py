"""A service of the test's own, and the command line as a person types it."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
Json = dict[str, Any]
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 60) -> T:
    """What ``look`` returns once it is neither None nor False; fails with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(0.1)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


class Lockstep:
    """One user's Lockstep: a home of its own, the service when started, and the command."""

    def __init__(self, home: Path, slurm_conf: Path | None) -> None:
        self.home = home
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": os.environ["HOME"],
            "LANG": "C.UTF-8",
            "COLUMNS": "200",
            "LOCKSTEP_HOME": str(home),
        }
        if slurm_conf is not None:
            self.environment["SLURM_CONF"] = str(slurm_conf)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def run(self, *arguments: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """The ``lockstep`` command with these arguments, in the home's folder."""
        return subprocess.run(
            ["lockstep", *map(str, arguments)],
            env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def command(self, *argv: str) -> str:
        """What one of Slurm's commands prints; it must succeed."""
        done = subprocess.run(
            argv, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def run_in_terminal(self, *arguments: str | Path, width: int = 160) -> tuple[int, str]:
        """The command in a terminal of its own, as a person has it: its exit code and all that it drew."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, width))
        process = subprocess.Popen(
            ["lockstep", *map(str, arguments)],
            env=self.environment | {"TERM": "xterm-256color", "COLUMNS": str(width)},
            cwd=self.home, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        drawn = bytearray()
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while chunk := terminal.read(65536):
                    drawn += chunk
            except OSError as error:
                if error.errno != errno.EIO:  # how Linux says that the other side has closed
                    raise
        return process.wait(timeout=30), drawn.decode(errors="replace")

    def json(self, *arguments: str | Path) -> Any:
        """What the command prints with ``--json``; it must succeed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, client: str = "auto") -> str:
        """Starts the service (on the port it had before, if it ran before) and returns its address once it is ready."""
        with (self.home / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["lockstep", "serve", "--port", str(self._port), "--client", client],
                env=self.environment, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        note = self.home / "service.json"

        def ready() -> str | None:
            assert self._process is not None
            if self._process.poll() is not None:
                pytest.fail(f"the service ended at its start:\n{(self.home / 'serve.log').read_text()[-4000:]}")
            if not note.exists():
                return None
            found = json.loads(note.read_text())
            if found["pid"] != self._process.pid:
                return None
            try:
                return found["url"] if httpx.get(f"{found['url']}/readyz", timeout=5).status_code == 200 else None
            except httpx.TransportError:
                return None

        url: str = wait_for("the service to be ready", ready, 60)
        self._port = int(url.rpartition(":")[2])
        return url

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the service: at once, or as an operator would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(timeout=20)
        self._process = None

    def job(self, job_id: str) -> Json:
        """One job as ``lockstep show --json`` has it."""
        found: Json = self.json("show", job_id)
        return found

    def until(self, job_id: str, phases: set[str], seconds: float = 120) -> Json:
        """The job once its phase is one of ``phases``."""

        def look() -> Json | None:
            found = self.job(job_id)
            return found if found["phase"] in phases else None

        return wait_for(f"job {job_id} to be {phases}", look, seconds)

    def submit(self, *settings: str, example: str = "digits.toml") -> str:
        """Submits an example with these settings and returns the job's id."""
        options = [word for setting in settings for word in ("--set", setting)]
        return str(self.json("submit", EXAMPLES / example, *options)["id"])

    def link(self, *job: str) -> str:
        """A link to the dashboard, or to a job's page, that lets one browser in."""
        return str(self.json("open", *job)["url"])

    @property
    def token(self) -> str:
        """The service's token."""
        return (self.home / "token").read_text().strip()


def spool(run: Path) -> list[dict[str, Any]]:
    """Every record of a run's spool."""
    return [json.loads(line) for file in sorted(run.glob("spool/*/*.jsonl")) for line in file.read_text().splitlines()]


def client(lockstep: Lockstep) -> httpx.Client:
    """The REST interface with the service's token."""
    url = json.loads((lockstep.home / "service.json").read_text())["url"]
    return httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {lockstep.token}"}, timeout=30)
