"""The scheduler's slice of a thread: short where it communicates, so that it does not wait for one that computes.

Standard library only. Linux's scheduler (EEVDF) runs the thread with the earliest virtual deadline, which is one slice
away: a thread with a shorter slice than the one that has the CPU is given it when it wakes, and no larger share of it.
Since Linux 6.12 a thread may have a slice of its own (``sched_setattr``, ``sched_runtime``: 0.1 to 100 ms), without
privilege. It begins with that of the thread that makes it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "LOCKSTEP_SLICE_US"
"""Microseconds for threads that communicate; 0 leaves them as they are."""
BOUNDS = (100, 100_000)
"""Of the kernel, in microseconds."""
SHORT = BOUNDS[0]
NUMBERS = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""Of the calls ``sched_setattr`` and ``sched_getattr``, by machine."""


class Attributes(ctypes.Structure):
    """``struct sched_attr`` (man sched_setattr), as its first version has it."""

    _fields_ = (
        ("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64), ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32), ("runtime", ctypes.c_uint64), ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )  # fmt: skip


def slice_of(thread: int) -> int | None:
    """Nanoseconds; None where the kernel says of none: before 6.12, of another policy, where no such thread is."""
    found = _attributes(thread)
    return int(found.runtime) if found is not None else None


def give(thread: int, nanoseconds: int) -> bool:
    """Gives a thread a slice, and leaves its policy and its nice value; whether it has it then."""
    found = _attributes(thread)
    if found is None:
        return False
    found.runtime = nanoseconds
    return _call(0, thread, ctypes.byref(found), 0) and slice_of(thread) == nanoseconds


def shorten(thread: int) -> bool:
    """Gives a thread that communicates its slice, by ``LOCKSTEP_SLICE_US``; whether it has it then.

    Where the kernel knows of none, nothing is changed. Raises ``ValueError`` where the variable is no such number.
    """
    wanted = os.environ.get(VARIABLE, "") or str(SHORT)
    if not wanted.isdecimal() or not (int(wanted) == 0 or BOUNDS[0] <= int(wanted) <= BOUNDS[1]):
        raise ValueError(f"{VARIABLE} is {wanted!r}; it takes 0, or {BOUNDS[0]} to {BOUNDS[1]} microseconds")
    return int(wanted) > 0 and give(thread, int(wanted) * 1000)


@contextmanager
def shortened(*threads: int) -> Iterator[None]:
    """These threads, or the calling one, have a short slice within it, and what they had before behind it.

    Whatever they make meanwhile begins with the short one, and keeps it.
    """
    before = {thread: slice_of(thread) for thread in threads or (threading.get_native_id(),)}
    try:
        for thread in before:
            shorten(thread)
        yield
    finally:
        for thread, nanoseconds in before.items():
            if nanoseconds is not None:
                give(thread, nanoseconds)


def _attributes(thread: int) -> Attributes | None:
    """None where the thread has no slice that could be told."""
    found = Attributes()
    told = _call(1, thread, ctypes.byref(found), ctypes.sizeof(found), 0)
    return found if told and found.policy in (os.SCHED_OTHER, os.SCHED_BATCH) and found.runtime else None


def _call(which: int, *arguments: object) -> bool:
    numbers = NUMBERS.get(platform.machine())
    if numbers is None:
        return False
    done: int = ctypes.CDLL(None).syscall(ctypes.c_long(numbers[which]), *arguments)
    return done == 0
