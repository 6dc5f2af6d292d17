"""Whether a process that a claim names still lives on this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lockstep_slurm.job.rundir import Claim

_TOLERANCE_SECONDS = 2.0


def alive(claim: Claim, proc: Path = Path("/proc")) -> bool:
    """Whether the claim's process lives here; False for one elsewhere, of which nothing can be told from here."""
    if claim.host != socket.gethostname():
        return False
    started = _started(proc, claim.pid)
    # A process id is used again; the claim's own process was there before its claim.
    return started is not None and started <= claim.claimed + _TOLERANCE_SECONDS


def _started(proc: Path, pid: int) -> float | None:
    """When the process started, in seconds since the epoch; None when there is none (proc(5): stat, field 22)."""
    try:
        # The command's name may hold anything, parentheses too; the fields are counted from behind it.
        fields = (proc / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] == "Z":
        return None
    booted = next(
        float(line.split()[1]) for line in (proc / "stat").read_text("utf-8").splitlines() if line.startswith("btime ")
    )
    return booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
