"""The service as an operator runs it: a process that is started again whenever it ends, and killed by the harness."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

AGAIN_AFTER = 0.2
"""Seconds between an end and the next start; systemd's RestartSec is 0.1 s by default."""


def free_port() -> int:
    """A port that nothing listens on just now; the service keeps it over its starts, as it would in deployment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """``lockstep serve`` under a supervisor. ``variables``: its further settings."""

    home: Path
    slurm_conf: Path
    client: str
    variables: dict[str, str]
    port: int = field(default_factory=free_port)
    killed: int = 0
    """How often a living one was ended by SIGKILL."""
    ended: int = 0
    """How often it ended by itself, which it may where it finds no byte for its database."""
    _process: subprocess.Popen[bytes] | None = None
    _stopping: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    @property
    def url(self) -> str:
        """The REST interface's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What all of its processes said."""
        return self.home / "serve.log"

    @property
    def token(self) -> str:
        """The service's token; there after its first start."""
        return (self.home / "token").read_text(encoding="utf-8").strip()

    def start(self) -> None:
        """Starts it, and again whenever it ends."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._begin()
        self._supervisor.start()

    def kill(self) -> bool:
        """SIGKILL, wherever it is in what it does, its own start included; whether there was a living one."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return False
            self._process.send_signal(signal.SIGKILL)
            self.killed += 1
            return True

    def stop(self) -> None:
        """Ends it for good."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)

    def _begin(self) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": os.environ.get("HOME", "/root"),
            "LANG": "C.UTF-8",
            "LOCKSTEP_HOME": str(self.home),
            "SLURM_CONF": str(self.slurm_conf),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["lockstep", "serve", "--port", str(self.port), "--client", self.client],
                env=environment | self.variables, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _supervise(self) -> None:
        while True:
            process = self._process
            if process is None:
                raise RuntimeError("the supervisor was started before the service")
            code = process.wait()
            with self._lock:
                if self._stopping:
                    return
            self.ended += code != -signal.SIGKILL
            time.sleep(AGAIN_AFTER)
            with self._lock:
                if self._stopping:
                    return
                self._begin()
