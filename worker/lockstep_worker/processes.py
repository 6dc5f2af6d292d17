"""Child processes that never outlive what started them (Linux; standard library only)."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from lockstep_slurm.job.bootstrap import python_module
from lockstep_worker.errors import WorkerError
from lockstep_worker.writer import CLOSING

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Makes this process the parent of whatever its descendants leave behind, so that ``end_descendants`` finds it."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def ends_with_parent() -> None:
    """This process gets SIGTERM when whoever started it ends, so that a killed script leaves no training behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def dies_with_its_parent(parent: int) -> None:
    """This process, a fork of ``parent``, gets SIGKILL when that ends, however it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def dies_with_parent(cpus: Iterable[int] | None = None, *, ignoring: Iterable[int] = ()) -> Callable[[], None]:
    """What a child does before its ``exec``: it gets SIGKILL when its parent ends, however that ends.

    It also leads a process group of its own (not a session: under Slurm's linuxproc one escapes) and moves to ``cpus``.
    The signals ``ignoring`` do nothing to it until it handles them itself.
    """
    parent = os.getpid()

    def prepare() -> None:
        dies_with_its_parent(parent)
        os.setpgid(0, 0)
        for number in ignoring:
            signal.signal(number, signal.SIG_IGN)
        if cpus is not None:
            os.sched_setaffinity(0, cpus)

    return prepare


def end_descendants(spared: Iterable[int] = (), patience: float = 0.0) -> None:
    """Ends and reaps every child of this process except ``spared``, and theirs as they are handed to it.

    They have ``patience`` seconds to end by themselves, then they get SIGKILL.
    """
    keep = set(spared)
    kill_at = time.monotonic() + patience
    while found := [pid for pid in _children() if pid not in keep]:
        kill = time.monotonic() >= kill_at
        for pid in found:
            if kill:
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0 if kill else os.WNOHANG)
        if not kill:
            time.sleep(0.05)


def _children() -> list[int]:
    """The children of this process, by their ``/proc/<pid>/stat``; not every kernel has the ready-made list."""
    own, found = os.getpid(), []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            try:
                stat = Path(f"/proc/{name}/stat").read_bytes()
            except OSError:
                continue  # it has ended
            # The second field is the command's name in parentheses, which may hold anything.
            if int(stat.rpartition(b")")[2].split()[1]) == own:
                found.append(int(name))
    return found


class Helper:
    """A process beside a rank, which ends when the pipe to its standard input does: with us, whatever becomes of us."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | IO[bytes],
        descriptors: Collection[int] = (),
    ) -> None:
        self.module = module
        self.process = subprocess.Popen(
            python_module(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=stdout,
            env=dict(environment),
            pass_fds=descriptors,
            # A group of its own: a terminal's Ctrl-C is for the training.
            preexec_fn=lambda: os.setpgid(0, 0),  # noqa: PLW1509 - this process has one thread
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def tell(self, line: bytes) -> None:
        """Writes a line to its standard input. Raises ``WorkerError`` when it has ended by itself."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.write(line)
                self.process.stdin.flush()
            except BrokenPipeError:
                self.process.wait()
                self.check()

    def check(self) -> None:
        """Raises ``WorkerError`` when it has ended by itself."""
        if (code := self.process.poll()) is not None:
            raise WorkerError(f"python -m {self.module} ended with {code}; its last words are in the log")

    def end(self, *, finish: bool, patience: float | None = None) -> None:
        """Ends it: with ``finish`` it first does what is left to do. After ``patience`` seconds it is killed."""
        if self.process.stdin is not None:
            try:
                if finish:
                    self.process.stdin.write(CLOSING)
                self.process.stdin.close()
            except BrokenPipeError:
                pass  # it has ended already
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
