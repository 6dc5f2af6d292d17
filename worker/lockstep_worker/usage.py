"""CPU time of the ranks' trainings and bytes through an interface, read from ``/proc`` (Linux; standard library only).

From outside: the training knows nothing of it. One pass over ``/proc`` serves all ranks of the node.
"""

from __future__ import annotations

import os
import resource
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TICK = float(os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True)
class Process:
    """What ``/proc/<pid>/stat`` tells of one process (man proc_pid_stat): fields 4 and 14 to 17."""

    parent: int
    cpu_s: float
    """User and system time of itself and of the children that it has waited for, in seconds."""


def processes() -> dict[int, Process]:
    """Every process that this one may see, by its id."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries, and a Path for each costs more than its use
        if name.isdecimal():
            try:
                descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has ended
            try:
                stat = os.read(descriptor, 4096)
            except OSError:
                continue
            finally:
                os.close(descriptor)
            # The second field is the command's name in parentheses, which may hold anything.
            fields = stat.rpartition(b")")[2].split()
            found[int(name)] = Process(int(fields[1]), sum(map(int, fields[11:15])) / _TICK)
    return found


def cpu_seconds(known: Mapping[int, Process], roots: Iterable[tuple[int, frozenset[int]]]) -> list[float]:
    """CPU seconds of all descendants of each root; the root itself and its children in the set beside it left out.

    A process that was waited for is in its parent's time; one that nobody has waited for is still in ``/proc``.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, process in known.items():
        children[process.parent].append(pid)
    totals = []
    for root, spared in roots:
        total = 0.0
        waiting = [pid for pid in children[root] if pid not in spared]
        while waiting:
            pid = waiting.pop()
            total += known[pid].cpu_s
            waiting.extend(children[pid])
        totals.append(total)
    return totals


def cpu_seconds_of_children() -> float:
    """CPU seconds of the children of this process that it has waited for, and of those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def interface_bytes(interface: str) -> tuple[int, int] | None:
    """Bytes received and sent through an interface of this network namespace, ever; None where there is none."""
    with open("/proc/self/net/dev", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for line in file:
            name, _, counters = line.partition(":")
            if name.strip() == interface and counters:
                fields = counters.split()
                return int(fields[0]), int(fields[8])
    return None
