"""Whether the kernel ended a process for want of memory: its counters, before and after (standard library only).

A process that the kernel kills for memory gets a plain SIGKILL. What tells it from anybody else's are counters: the
cgroup's, of kills in this very step or job, and the node's, of all kills on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60
"""Bytes from which a cgroup's limit is none: version 1 writes a number near 2**63."""


@dataclass(frozen=True)
class Kills:
    """Kills for want of memory so far; None: nothing here says how many."""

    of_cgroup: int | None
    of_node: int | None
    limit: int | None = None
    """Bytes that the cgroup may have, where it has a limit."""


def counted(cgroup: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> Kills:
    """What the kernel has counted until now for this process's cgroup, and for the node."""
    folder = _folder(cgroup, mounts)
    of_cgroup = limit = None
    if folder is not None:
        version_1 = (folder / "memory.oom_control").exists()
        of_cgroup = _counter(folder / ("memory.oom_control" if version_1 else "memory.events"))
        limit = _limit(folder, "memory.limit_in_bytes" if version_1 else "memory.max")
    return Kills(of_cgroup, _counter(Path("/proc/vmstat")), limit)


def _folder(cgroup: str, mounts: str) -> Path | None:
    """The folder of this process's memory cgroup (cgroups(7)), of version 1 where its memory is there, else 2."""
    own: dict[str, str] = {}
    for line in _read(Path(cgroup)).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            own["cgroup" if controllers else "cgroup2"] = path
    found: dict[str, Path] = {}
    for line in _read(Path(mounts)).splitlines():
        before, _, behind = line.partition(" - ")
        kind, options = behind.partition(" ")[0], behind.rpartition(" ")[2]
        if kind in own and (kind == "cgroup2" or "memory" in options.split(",")):
            root, mounted = before.split(" ")[3:5]
            # What is mounted may be a part of the tree only, as in a container.
            below = own[kind] if root == "/" else own[kind].partition(root)[2]
            found[kind] = Path(mounted + below)
    return found.get("cgroup") or found.get("cgroup2")


def _limit(folder: Path, name: str) -> int | None:
    """The least limit of the cgroup and of those that it is in."""
    limits = [_read(one / name).strip() for one in (folder, *folder.parents)]
    known = [int(limit) for limit in limits if limit.isdecimal() and int(limit) < _UNLIMITED]
    return min(known, default=None)


def _counter(path: Path) -> int | None:
    found = re.search(r"^oom_kill (\d+)$", _read(path), re.MULTILINE)
    return int(found[1]) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # no such cgroup, or none that may be seen: then nothing is known


def risen(before: Kills, after: Kills) -> Mapping[str, bool]:
    """Whether there were kills between the two, of the ``cgroup`` and of the ``node``."""
    pairs = {"cgroup": (before.of_cgroup, after.of_cgroup), "node": (before.of_node, after.of_node)}
    return {name: one is not None and two is not None and two > one for name, (one, two) in pairs.items()}
