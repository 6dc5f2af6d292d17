"""A rank's heartbeat: how many steps it has done and when, in a few bytes that its node's watchdog reads.

Standard library only. The training writes into memory that is a file of the node's folder: no system call, no waiting.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_FORM = struct.Struct("=qqddq")
"""Process id, steps, when the last one was done, the longest time between two, whether it has ended."""


@dataclass(frozen=True)
class Seen:
    """A heartbeat as it was read."""

    pid: int
    steps: int
    """As the training counts them; 0: none is done yet."""
    last: float
    """``time.monotonic()`` of this node when it last reported a step or an evaluation."""
    longest: float
    """Seconds, of all the times between two steps so far."""
    ended: bool
    """Whether it has reported its end: what it does after that is no step."""


class Beat:
    """The training's side."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)
        self._pid = os.getpid()
        self._steps, self._last, self._longest = 0, 0.0, 0.0
        self._write()

    def reported(self, kind: object, step: object) -> None:
        """The training has reported something; only steps, evaluations and its end say how far it is."""
        if kind not in ("step", "evaluation", "end") or os.getpid() != self._pid:
            return
        now = time.monotonic()
        if kind == "step":
            if self._last:
                self._longest = max(self._longest, now - self._last)
            self._steps = max(self._steps + 1, step if isinstance(step, int) else 0)
        self._last = now
        self._write(ended=kind == "end")

    def _write(self, *, ended: bool = False) -> None:
        _FORM.pack_into(self._memory, 0, self._pid, self._steps, self._last, self._longest, ended)


def read(path: Path) -> Seen | None:
    """The heartbeat there; None where no training has begun to beat."""
    try:
        data = path.read_bytes()[: _FORM.size]
    except OSError:
        return None
    if len(data) < _FORM.size:
        return None
    pid, steps, last, longest, ended = _FORM.unpack(data)
    return Seen(pid, steps, last, longest, bool(ended))
