"""A real PostgreSQL for tests: the distribution's binaries, one folder, a Unix socket and no TCP port."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

READY_WITHIN = 30.0


def binaries() -> Path | None:
    """The newest PostgreSQL's folder of programs, or None; Debian keeps them off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _as_server_user() -> tuple[list[str], int, int]:
    """What to put before a command, and whose the files are: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return [], os.getuid(), os.getgid()
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user.pw_uid, user.pw_gid


@dataclass
class Server:
    """A running server; ``new_database()`` makes an empty database in it and returns its SQLAlchemy URL."""

    folder: Path
    programs: Path
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database, over the Unix socket."""
        return f"postgresql+psycopg://tests@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Makes an empty database and returns its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._run("createdb", name)
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), f"--host={self.folder}", "--username=tests", *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def running(programs: Path) -> Iterator[Server]:
    """Starts a server in a folder of its own and ends it, folder and all, at the end."""
    before, uid, gid = _as_server_user()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-pg-"))  # short: a socket's path has at most 107 characters
    os.chown(folder, uid, gid)
    data, log = folder / "data", folder / "log"
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    try:
        initdb = [*before, str(programs / "initdb"), "--username=tests", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        made = subprocess.run(
            [*initdb, str(data)], env=environment, cwd="/", capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr}")
        with log.open("wb") as out:
            server = subprocess.Popen(
                [*before, str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses=",
                 "-c", "fsync=off"],
                env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            _wait_until_ready(server, programs, folder, log)
            yield Server(folder, programs)
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: open connections are ended
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def _wait_until_ready(server: subprocess.Popen[bytes], programs: Path, folder: Path, log: Path) -> None:
    """Returns when the server takes connections; its log where it ended or does not within the time."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        if subprocess.run([programs / "pg_isready", "-q", f"--host={folder}"], check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not come up: {log.read_text()}")
