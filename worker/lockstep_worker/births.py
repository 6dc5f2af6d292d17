"""How the threads of this process came to be: a thread's role is its birth, never where it runs.

Standard library only; runs inside the training. A thread is known by its id and the moment of its start, since the
kernel gives ids again. What Python itself started is nobody's helper: such a thread has a role only by ``register``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

UNKNOWN = "unclassified"
MAIN = "main"


class Births:
    """What is known of the threads of this process."""

    def __init__(self, alive: Callable[[], Mapping[int, int]] | None = None) -> None:
        self._alive = threads_alive if alive is None else alive
        self._roles: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def role(self, tid: int, start: int) -> str:
        """The role of the thread ``tid`` that started at ``start``."""
        if tid == os.getpid():
            return MAIN
        known = self._roles.get(tid)
        return known[1] if known is not None and known[0] == start else UNKNOWN

    @contextmanager
    def during(self, *roles: str) -> Iterator[None]:
        """Gives the threads that are born within these roles, in the order of their birth; the last one to the rest.

        Whose birth is known already, in a call within the call, keeps its role.
        """
        before = self._alive()
        try:
            yield
        finally:
            alive = self._alive()
            born = {tid: start for tid, start in alive.items() if before.get(tid) != start}
            ours = [tid for tid in in_order(born) if tid not in pythons_own() and self.role(tid, born[tid]) == UNKNOWN]
            with self._lock:
                for number, tid in enumerate(ours):
                    self._roles[tid] = (born[tid], roles[min(number, len(roles) - 1)])

    def give(self, tids: Sequence[int], role: str) -> None:
        """Gives these threads a role."""
        alive = self._alive()
        with self._lock:
            self._roles.update({tid: (alive[tid], role) for tid in tids if tid in alive})

    def unknown(self) -> list[int]:
        """Living threads that have no role and that Python did not start."""
        python = pythons_own()
        return [tid for tid, start in self._alive().items() if self.role(tid, start) == UNKNOWN and tid not in python]


def threads_alive() -> dict[int, int]:
    """The threads of this process: id to the moment of its start (clock ticks since the machine's)."""
    found = {}
    for name in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are all that is needed
        try:
            stat = Path(f"/proc/self/task/{name}/stat").read_bytes()
        except OSError:
            continue  # it has ended
        found[int(name)] = start_of(stat)
    return found


def start_of(stat: bytes) -> int:
    """The 22nd field of a ``stat`` file (man proc): the second is a name in parentheses, which may hold anything."""
    return int(stat.rpartition(b")")[2].split()[19])


def in_order(born: Mapping[int, int], highest: int | None = None) -> list[int]:
    """Threads in the order of their birth: by their start, and within one clock tick by their ids.

    Ids count up to the kernel's ``pid_max``, then from below again.
    """
    half = (_highest_id() if highest is None else highest) // 2
    top = max(born, default=0)
    return sorted(born, key=lambda tid: (born[tid], top - tid > half, tid))


def pythons_own() -> set[int]:
    """The ids of the threads that Python started."""
    return {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


def _highest_id() -> int:
    try:
        return int(Path("/proc/sys/kernel/pid_max").read_text())
    except (OSError, ValueError):
        return 1 << 22


BIRTHS = Births()
"""Those of this process."""


def register(role: str) -> None:
    """Says what the calling thread is: for threads that Python started, such as Lockstep's own exchange thread."""
    BIRTHS.give([threading.get_native_id()], role)


def _forget_after_fork() -> None:
    """A forked child has one thread, and a lock that another thread may have held."""
    global BIRTHS  # noqa: PLW0603
    BIRTHS = Births()


if sys.platform == "linux":
    os.register_at_fork(after_in_child=_forget_after_fork)
