"""A PostgreSQL of the benchmark's own, as durable as it comes: fsync and synchronous_commit are on."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.errors import LockstepError

READY_SECONDS = 60.0
USER = "lockstep"


class PostgresError(LockstepError):
    """PostgreSQL cannot be run here; its rows are left out, and the table says so."""


@dataclass(frozen=True)
class Postgres:
    """A server on a Unix socket in ``folder``."""

    programs: Path
    folder: Path

    def database(self, name: str) -> str:
        """Makes an empty database; its address without a driver's name."""
        argv = [str(self.programs / "createdb"), f"--host={self.folder}", f"--username={USER}", name]
        subprocess.run(argv, check=True, capture_output=True)
        return f"postgresql://{USER}@/{name}?host={self.folder}"


@contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """Runs a server in ``folder``, which is made for it, until the block ends. ``PostgresError`` where it cannot."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        raise PostgresError("PostgreSQL is not installed; `apt-get install postgresql`")
    programs, data, log = found[-1].parent, folder / "data", folder / "log"
    folder.mkdir()
    before: list[str] = []
    if os.geteuid() == 0:  # which it refuses to run as
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        before = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}
    initdb = [*before, str(programs / "initdb"), f"--username={USER}", "--auth=trust", "--encoding=UTF8", str(data)]
    made = subprocess.run(initdb, env=environment, cwd="/", capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise PostgresError(f"initdb: {made.stderr.strip()[-500:]}")
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*before, str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="],
            env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        ready = [str(programs / "pg_isready"), "-q", f"--host={folder}"]
        deadline = time.monotonic() + READY_SECONDS
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > deadline or server.poll() is not None:
                raise PostgresError(f"PostgreSQL did not come up: {log.read_text(encoding='utf-8')[-500:]}")
            time.sleep(0.05)
        yield Postgres(programs, folder)
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait(30)
