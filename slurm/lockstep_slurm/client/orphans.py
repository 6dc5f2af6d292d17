"""Submits that a killed process of ours left running: an ``sbatch`` whose queue is full goes on for two minutes."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection
from pathlib import Path

from lockstep_slurm.client import processes

_log = logging.getLogger(__name__)


def end(names: Collection[str]) -> int:
    """Ends this user's ``sbatch`` processes on this machine that submit a job of one of these names; returns how many.

    Only what nobody waits for any more may be named: whether such a submit has happened, is not known afterwards.
    """
    ended, boot = 0, processes.boot_id()
    wanted = {f"--job-name={name}".encode() for name in names}
    for one in processes.everything():
        try:
            if Path(f"/proc/{one.pid}").stat().st_uid != os.geteuid():
                continue
            words = Path(f"/proc/{one.pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A site's wrapper script has the same arguments, after its interpreter.
        if wanted.isdisjoint(words) or not any(word.endswith(b"sbatch") for word in words[:3]):
            continue
        if processes.send(processes.Identity(boot, one.pid, one.start), signal.SIGKILL):
            _log.info("process %d, a submit that nobody waits for any more, was ended", one.pid)
            ended += 1
    return ended
