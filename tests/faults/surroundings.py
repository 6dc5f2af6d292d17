"""What is around the service: slurmctld, whose process is stopped and ended, its limits, and a disk that fills up."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.cluster import ClusterInfo, daemons
from lockstep_slurm.cluster.layout import Layout

DISK_MIB = 96
"""The size of the database's own file system: more than a run's database, its log and its index need."""
PATIENCE = 60.0
"""Seconds for a slurmctld to end, or to answer after its start."""

# Slurm's own limits of jobs need slurmdbd and its database. A site's submit plugin is asked by the same slurmctld at
# the same place, and refuses with the same error code; this one counts as MaxSubmitJobs does, pending and running.
SUBMIT_PLUGIN = """\
local folder = {folder}
function slurm_job_submit(job, parts, uid)
  local file = io.open(folder .. "/limit")
  if file == nil then return slurm.SUCCESS end
  local most = tonumber(file:read("*l"))
  file:close()
  if most == nil then return slurm.SUCCESS end
  local mine = 0
  for _, other in pairs(slurm.jobs) do
    if other.user_id == uid and other.job_state < 3 then mine = mine + 1 end
  end
  if mine < most then return slurm.SUCCESS end
  local refused = io.open(folder .. "/refused", "a")
  refused:write(mine, "\\n")
  refused:close()
  slurm.log_user("AssocMaxSubmitJobLimit")
  return slurm.ESLURM_ACCOUNTING_POLICY
end
function slurm_job_modify(job, record, parts, uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""


TURNED_AWAY = "_slurm_rpc_submit_batch_job: Resource temporarily unavailable"
"""What slurmctld (22.05) logs of a submit for which MaxJobCount leaves no room."""


class SurroundingsError(RuntimeError):
    """Something around the service could not be made to fail, or to work again, as it should."""


def write_submit_plugin(folder: Path) -> None:
    """Puts the submit plugin beside a cluster's slurm.conf, where its slurmctld looks for it."""
    (folder / "job_submit.lua").write_text(SUBMIT_PLUGIN.format(folder=f'"{folder}"'))


@dataclass
class Controller:
    """slurmctld of a one-machine cluster."""

    cluster: ClusterInfo

    def __post_init__(self) -> None:
        self._layout = Layout.of(self.cluster.folder)

    @property
    def completions(self) -> Path:
        """Slurm's own job-completion file."""
        return self._layout.completions

    @property
    def refused(self) -> int:
        """How many submits the limit refused so far."""
        file = self.cluster.folder / "refused"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def turned_away(self) -> int:
        """How many submits slurmctld turned away because it had MaxJobCount jobs, by its own log."""
        return self._layout.controller_log.read_text(errors="replace").count(TURNED_AWAY)

    def limit(self, jobs: int | None) -> None:
        """From now on at most so many jobs of one user, pending and running; None: as many as one likes."""
        file = self.cluster.folder / "limit"
        if jobs is None:
            file.unlink(missing_ok=True)
            return
        partial = file.with_suffix(".partial")
        partial.write_text(f"{jobs}\n")
        partial.replace(file)

    def terminate(self) -> None:
        """SIGTERM, and waits until it has ended."""
        pid = self._pid()
        os.kill(pid, signal.SIGTERM)
        _until(f"slurmctld ({pid}) to end", lambda: not Path(f"/proc/{pid}").exists())

    def start(self, *, most_jobs: int | None = None) -> None:
        """Starts it again and waits until it answers. ``most_jobs``: its MaxJobCount from now on; None: Slurm's own."""
        conf = self._layout.slurm_conf
        text = re.sub(r"(?m)^MaxJobCount=.*\n", "", conf.read_text())
        conf.write_text(text if most_jobs is None else f"MaxJobCount={most_jobs}\n{text}")
        daemons.start_controller(self._layout)
        _until("slurmctld to answer", lambda: daemons.ask(self._layout, "scontrol", "ping", timeout=10) is not None)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end: what is sent to it meanwhile is answered by nobody, and read later."""
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def queued(self) -> list[str]:
        """The names of the jobs in the queue that have not ended."""
        said = daemons.ask(self._layout, "squeue", "--noheader", "--format=%j", timeout=30)
        if said is None:
            raise SurroundingsError("squeue was not answered")
        return said.split()

    def _pid(self) -> int:
        return int(self._layout.controller_pid.read_text())


@dataclass
class Disk:
    """A file system of its own for the database, in memory."""

    folder: Path

    @property
    def database(self) -> Path:
        """The SQLite file on it."""
        return self.folder / "lockstep.db"

    def mount(self) -> None:
        """Makes it; needs root."""
        self.folder.mkdir(mode=0o700)
        options = f"size={DISK_MIB}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "lockstep-faults", str(self.folder)], check=True)

    def unmount(self) -> None:
        """Takes it away with all that is on it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Takes every free byte; called again, also those that were given back meanwhile.

        SQLite's log is emptied into the database before: else it would go on for a while in what the log has already.
        """
        # A reader may keep it from being emptied, or the disk be full already: the next call is the next try.
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(self.database, timeout=5)) as database,
        ):
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        block = b"\0" * (1 << 16)
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            while block:
                try:
                    filler.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    block = block[: len(block) // 2]

    def empty(self) -> None:
        """Gives them back."""
        (self.folder / "filler").unlink()


def _until(what: str, look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if look():
            return
        time.sleep(0.05)
    raise SurroundingsError(f"waited {PATIENCE:.0f} s for {what}")
