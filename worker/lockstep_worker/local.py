"""All ranks on this machine, without Slurm: what ``srun --label --kill-on-bad-exit`` does (standard library only)."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO

from lockstep_slurm.job.bootstrap import python_module
from lockstep_slurm.job.rundir import STOPPED, read_claims, read_exit
from lockstep_worker.meeting import Network
from lockstep_worker.processes import adopt_orphans, dies_with_parent, end_descendants, ends_with_parent

GRACE = 20.0
"""Seconds between SIGTERM to the remaining ranks and SIGKILL."""
_POLL = 0.05
_lines = threading.Lock()


def new_id() -> str:
    """A name for a run without Slurm: this host, this process, now. A caller may give one by ``LOCKSTEP_LOCAL_ID``."""
    given = os.environ.get("LOCKSTEP_LOCAL_ID")
    return re.sub(r"[^A-Za-z0-9_.-]", "-", given or f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}")


class Ranks:
    """All ranks of a run as children of this process, each line of theirs with the rank before it.

    When one fails, or a signal comes, the others get SIGTERM, and ``GRACE`` seconds later SIGKILL.
    """

    def __init__(self, run: Path, size: int, local_id: str, restart_count: int, network: Network) -> None:
        arguments = ["--run", str(run), "--local-ranks", str(size), "--local-id", local_id]
        arguments += ["--restart-count", str(restart_count), *network.arguments()]
        adopt_orphans()
        self._run = run
        self._identity = (local_id, restart_count)
        self._kill_at = math.inf
        self._ranks: list[subprocess.Popen[bytes]] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._forward)
        ends_with_parent()
        for rank in range(size):
            self._ranks.append(self._start([*arguments, "--local-rank", str(rank)]))
        self._labels = [
            threading.Thread(target=_label, args=(rank, source, sink), daemon=True)
            for rank, process in enumerate(self._ranks)
            for source, sink in ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
        ]

    def wait(self) -> int:
        """Waits for all ranks; returns the exit code that the exit record tells, else that of the first that failed."""
        for thread in self._labels:
            thread.start()
        first = 0
        while running := [process for process in self._ranks if process.poll() is None]:
            first = first or self._failure()
            if first and self._kill_at == math.inf:
                self._forward(signal.SIGTERM, None)
            if time.monotonic() >= self._kill_at:
                for process in running:
                    process.kill()
            try:
                running[0].wait(_POLL)
            except subprocess.TimeoutExpired:
                continue
        first = first or self._failure()
        # What is left now has lost its rank's wrapper: a writer that puts the last records away, then ends by itself.
        end_descendants(patience=GRACE)
        for thread in self._labels:
            thread.join()
        if first:
            first = self._recorded() or first
        elif self._recorded() == STOPPED:
            first = STOPPED
        return first if first >= 0 else 128 - first

    def _recorded(self) -> int | None:
        """What the exit record of this run tells, as ``subprocess`` would: the rank that was the cause may end last."""
        own = [one for one in read_claims(self._run) if (one.local_id, one.restart_count) == self._identity]
        ended = read_exit(self._run, own[-1].attempt) if own else None
        if ended is None:
            return None
        return ended.code if ended.signal is None else -ended.signal

    def _failure(self) -> int:
        return next((process.returncode for process in self._ranks if process.returncode), 0)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGUSR1:
            self._kill_at = min(self._kill_at, time.monotonic() + GRACE)
        for process in self._ranks:
            if process.poll() is None:
                process.send_signal(number)

    @staticmethod
    def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            python_module("lockstep_worker.launch", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=dies_with_parent(),  # noqa: PLW1509 - there are no threads yet
        )


def _label(rank: int, source: IO[bytes], sink: IO[bytes]) -> None:
    """Copies whole lines, each with its rank before it, as ``srun --label`` does."""
    broken = False
    for line in source:
        if broken:
            continue  # nobody reads any more, but a rank must never wait for a full pipe
        try:
            with _lines:
                sink.write(b"%d: %s" % (rank, line if line.endswith(b"\n") else line + b"\n"))
                sink.flush()
        except BrokenPipeError:
            broken = True
