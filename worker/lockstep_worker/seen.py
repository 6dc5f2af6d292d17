"""What the kernel says of a process's threads: where each may run and where it last did (standard library only).

Read inside the training as well, so CPU lists stay the kernel's own text (``0-2,7``) until somebody needs numbers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MAPPINGS_LIMIT = 20_000
"""Lines of numa_maps that are read: each costs the kernel a walk through the pages behind it."""


class Seen(NamedTuple):
    """One thread."""

    tid: int
    start: int
    """When it started, in clock ticks since the machine's start."""
    name: str
    cpus: str
    """The CPUs that the kernel allows it (Cpus_allowed_list)."""
    last: int
    """The CPU on which it last ran."""


_EXITING = 0x4


def threads(pid: int | str = "self") -> Iterator[Seen]:
    """All threads of a process that do not end meanwhile. Raises ``OSError`` where there is no such process."""
    for name in sorted(map(int, os.listdir(f"/proc/{pid}/task"))):  # noqa: PTH208 - names are all that is needed
        seen = thread(f"/proc/{pid}/task/{name}", name)
        if seen is not None:
            yield seen


def thread(folder: str, tid: int) -> Seen | None:
    """The thread whose folder in /proc this is; None: it has ended."""
    try:
        with open(f"{folder}/stat", "rb") as file:  # noqa: PTH123 - of many threads, as quickly as can be
            stat = file.read()
        with open(f"{folder}/status", "rb") as file:  # noqa: PTH123
            status = file.read()
    except OSError:
        return None
    head, _, rest = stat.rpartition(b")")
    fields = rest.split()
    cpus = status.partition(b"Cpus_allowed_list:")[2].partition(b"\n")[0].strip()
    # man proc: fields 22 and 39; ``rest`` begins with the third.
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    return Seen(tid, int(fields[19]), name, cpus.decode(), int(fields[36]))


def memory(pid: int) -> tuple[str, dict[int, int]]:
    """The memory policy of a process, and its resident pages by NUMA domain; ``""`` and none where nothing says so.

    From /proc/<pid>/numa_maps: its second word is the policy (of the process, where a mapping has none of its own), and
    ``N<domain>=<pages>`` counts pages of the size that ``kernelpagesize_kB`` tells. Pages of 4 KiB are returned.
    """
    policy, pages = "", dict[int, int]()
    try:
        with Path(f"/proc/{pid}/numa_maps").open(encoding="ascii", errors="replace") as lines:
            for number, line in enumerate(lines):
                words = line.split()
                if number == 0 and len(words) > 1:
                    policy = words[1]
                if number >= MAPPINGS_LIMIT:
                    break
                size = next((int(word.partition("=")[2]) for word in words if word.startswith("kernelpagesize_")), 4)
                for word in words[2:]:
                    if word[0] == "N" and word[1:2].isdigit():
                        domain, _, count = word[1:].partition("=")
                        pages[int(domain)] = pages.get(int(domain), 0) + int(count) * size // 4
    except (OSError, ValueError):
        pass  # the process has ended, or the kernel has no NUMA: what was read until then is what is known
    # Of one that is ending the kernel takes the policy back before its memory, and then tells the default.
    return "" if is_ending(pid) else policy, pages


def is_ending(pid: int) -> bool:
    """Whether a process has ended, or is on its way out (PF_EXITING among the flags of /proc/<pid>/stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] in (b"Z", b"X") or int(fields[6]) & _EXITING != 0


def cpuset(pid: int, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> str:
    """The CPUs that the cgroup of a process lets it have; empty: nothing says so."""
    try:
        lines = (proc / f"{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "cpuset" in controllers.split(","):
            files = [f"cpuset{path}/cpuset.effective_cpus", f"cpuset{path}/cpuset.cpus"]
        elif number == "0":
            # A group without the controller has its nearest ancestor's that has it.
            own = PurePosixPath(path.lstrip("/"))
            files = [f"{group}/cpuset.cpus.effective" for group in (own, *own.parents)]
        else:
            continue
        for file in files:
            with contextlib.suppress(OSError):
                if cpus := (groups / file).read_text().strip():
                    return cpus
    return ""
