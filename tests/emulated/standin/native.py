"""Threads as a library written in C makes them: the kernel knows them, Python's ``threading`` does not."""

from __future__ import annotations

import _thread
import ctypes
from collections.abc import Callable

_LIBC = ctypes.CDLL(None)
_SET_NAME = 15  # PR_SET_NAME, linux/prctl.h


def start(name: str, work: Callable[[], object] = lambda: None) -> None:
    """A thread that does ``work`` and then idles as long as the process lives; returns once ``work`` is done."""
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        _LIBC.prctl(_SET_NAME, name.encode(), 0, 0, 0)
        try:
            work()
        finally:
            done.release()
        forever = _thread.allocate_lock()
        forever.acquire()
        forever.acquire()

    _thread.start_new_thread(run, ())
    done.acquire()
