"""The processes of one cluster, found in /proc: its daemons by their command lines, its jobs by their environment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.cluster.layout import Layout

DAEMONS = ("munged", "slurmctld", "slurmd")


@dataclass(frozen=True)
class Process:
    """One process. ``started`` (clock ticks since boot) tells it from a later one with the same id."""

    pid: int
    started: int
    command: tuple[str, ...]

    def alive(self) -> bool:
        """Whether this very process still runs; one that has ended but was not yet waited for does not."""
        stat = _stat(self.pid)
        return stat is not None and stat == ("alive", self.started)

    def send(self, number: signal.Signals) -> None:
        """Sends the signal, unless the process has ended (its id may be another's by now)."""
        if not self.alive():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return


def _stat(pid: int) -> tuple[str, int] | None:
    """``("alive" | "ended", start time)`` of a process id, or None where there is none."""
    try:
        # The second field is the command in parentheses and may hold anything; the rest has fixed places (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ("ended" if fields[0] in "ZX" else "alive", int(fields[19]))


def everything() -> Iterator[Process]:
    """Every process of the machine that still runs."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        stat = _stat(int(entry.name))
        if stat is None or stat[0] != "alive":
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield Process(int(entry.name), stat[1], tuple(os.fsdecode(command).rstrip("\0").split("\0")))


def environment(process: Process) -> dict[str, str]:
    """The environment a process was started with; empty where it ended meanwhile or is another user's."""
    try:
        raw = Path(f"/proc/{process.pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    return dict(os.fsdecode(item).partition("=")[::2] for item in raw.split(b"\0") if item)


def daemons(layout: Layout) -> dict[str, Process]:
    """The daemons of this cluster that run: ``munged``, ``slurmctld``, and each slurmd under its node's name.

    A process counts if it is such a daemon *and* was started with this cluster's file: a pid file alone may be stale.
    """
    ours = {f"--key-file={layout.munge_key}", str(layout.slurm_conf)}
    found: dict[str, Process] = {}
    for process in everything():
        program = Path(process.command[0]).name
        if program not in DAEMONS or ours.isdisjoint(process.command):
            continue
        if program == "slurmd":
            program = process.command[process.command.index("-N") + 1]
        # While it puts itself into the background there are up to three of it; the last one stays.
        if program not in found or process.started >= found[program].started:
            found[program] = process
    return found


def jobs(cluster_name: str) -> list[Process]:
    """What runs inside jobs of this cluster (batch scripts, tasks, what they left behind), but not this process."""
    mine = {os.getpid(), os.getppid()}
    return [
        process
        for process in everything()
        if process.pid not in mine
        # slurmd sets both in whatever it starts; an salloc shell on this side has only the first, and is a person's.
        and (variables := environment(process)).get("SLURM_CLUSTER_NAME") == cluster_name
        and "SLURMD_NODENAME" in variables
    ]


def end(processes: Iterable[Process], patience: float) -> list[Process]:
    """Asks the processes to end, kills those that have not after ``patience`` seconds; returns the killed ones."""
    left = [process for process in processes if process.alive()]
    for process in left:
        process.send(signal.SIGTERM)
    left = _wait(left, patience)
    for process in left:
        process.send(signal.SIGKILL)
    _wait(left, 5.0)
    return left


def _wait(processes: list[Process], seconds: float) -> list[Process]:
    """Waits until all have ended, at most this long; returns those that still run."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if process.alive()]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left
