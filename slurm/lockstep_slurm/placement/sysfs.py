"""``from_sysfs``: the machine that this process runs on, from the kernel's own files under /sys.

The whole machine, whatever CPUs this process may use: what it was granted is its affinity mask, and is the plan's to
weigh. The order is hwloc's: siblings at every level by their lowest CPU. A container may hide any of the files: what
is not told is made up for, no package as one socket, no node as domain 0, no siblings as cores of one thread, and no
files at all as the CPUs of this process on one socket, since a rank must be placed there too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

from lockstep_slurm.placement.assemble import Place, assemble
from lockstep_slurm.placement.cpulist import from_mask, parse
from lockstep_slurm.placement.errors import TopologyError
from lockstep_slurm.placement.topology import NumaDomain, Topology

SYS = Path("/sys")


def from_sysfs(root: Path = SYS) -> Topology:
    """The machine whose /sys is ``root``.

    Of the live /sys there is always an answer. Raises ``TopologyError`` where another folder has no CPUs in it, or a
    file in it holds what no kernel writes.
    """
    cpus = _Cpus(f"{root}/devices/system/cpu")
    nodes = _Nodes(f"{root}/devices/system/node")
    online = cpus.online()
    if not online:
        if root != SYS:
            raise TopologyError(f"{root}/devices/system/cpu names no CPU; is {root} the /sys of a machine?")
        online = tuple(sorted(os.sched_getaffinity(0)))
    places = _in_order(_places(cpus, nodes, online))
    domains = nodes.described() or [NumaDomain(0, _kilobytes(_read(f"{root.parent}/proc/meminfo")))]
    return assemble(places, domains, cards=_cards(f"{root}/class"), exist=cpus.present())


def _read(path: str) -> str:
    """The file's text without the line's end; empty where it is missing or hidden, which is common for any of them."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - hundreds of files at each rank's start
            return file.read().decode("ascii", "replace").strip("\0\n\t ")  # Linux 3 ends some with a NUL
    except OSError:
        return ""


def _numbers(path: str, *, mask: str = "") -> tuple[int, ...]:
    """The list of CPUs or nodes in a file; kernels before 2.6.26 have only its mask, in the file ``mask``."""
    text = _read(path)
    try:
        if text or not mask:
            return parse(text)
        return from_mask(int(_read(mask).replace(",", "") or "0", 16))
    except ValueError as error:
        raise TopologyError(f"{path}: {error}") from error


def _numbered(folder: str, name: str) -> tuple[int, ...]:
    entries = _entries(folder)
    return tuple(sorted(int(entry[len(name) :]) for entry in entries if re.fullmatch(rf"{name}[0-9]{{1,9}}", entry)))


class _Cpus:
    """devices/system/cpu. One file tells of all CPUs that share a part, so each part is read of one CPU alone."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def online(self) -> tuple[int, ...]:
        told = _numbers(f"{self.folder}/online")
        if told:
            return told
        return tuple(cpu for cpu in _numbered(self.folder, "cpu") if _read(f"{self.folder}/cpu{cpu}/online") != "0")

    def present(self) -> tuple[int, ...]:
        return _numbers(f"{self.folder}/present") or _numbered(self.folder, "cpu")

    def core(self, cpu: int) -> tuple[int, ...]:
        """The hardware threads of its core."""
        return self._siblings(cpu, "core_cpus", "thread_siblings") or (cpu,)

    def socket(self, cpu: int) -> tuple[int, ...]:
        """The CPUs of its socket; its number is no help: -1 on many ARM machines, and per book on s390."""
        return self._siblings(cpu, "package_cpus", "core_siblings")

    def node(self, cpu: int) -> int | None:
        """The domain that its own folder names, where the domain has none: it is off (no memory, its first CPU off)."""
        return next(iter(_numbered(f"{self.folder}/cpu{cpu}", "node")), None)

    def caches(self, cpu: int) -> dict[int, tuple[int, ...]]:
        """The CPUs that share its cache, by level, for those that hold data."""
        found: dict[int, tuple[int, ...]] = {}
        for index in range(16):
            folder = f"{self.folder}/cpu{cpu}/cache/index{index}"
            level = _read(f"{folder}/level")
            if not level.isdigit():
                break
            if int(level) in (2, 3) and _read(f"{folder}/type") != "Instruction":
                members = _numbers(f"{folder}/shared_cpu_list", mask=f"{folder}/shared_cpu_map")
                if cpu in members:
                    found[int(level)] = members
        return found

    def _siblings(self, cpu: int, *names: str) -> tuple[int, ...]:
        """By the newer name first (Linux 5.3)."""
        for name in names:
            path = f"{self.folder}/cpu{cpu}/topology/{name}"
            found = _numbers(f"{path}_list", mask=path)
            if found:
                return found
        return ()


class _Nodes:
    """devices/system/node; missing where the kernel has no NUMA."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.numbers = _numbered(folder, "node")
        self.of: dict[int, int] = {}
        for number in self.numbers:
            for cpu in _numbers(f"{folder}/node{number}/cpulist", mask=f"{folder}/node{number}/cpumap"):
                self.of.setdefault(cpu, number)

    def described(self) -> list[NumaDomain]:
        return [
            NumaDomain(number, _kilobytes(_read(f"{self.folder}/node{number}/meminfo")), self._distances(number))
            for number in self.numbers
        ]

    def _distances(self, number: int) -> tuple[int, ...]:
        words = _read(f"{self.folder}/node{number}/distance").split()
        return tuple(int(word) for word in words if word.isdigit())


def _kilobytes(meminfo: str) -> int:
    found = re.search(r"MemTotal:\s*(\d+) kB", meminfo)
    return int(found[1]) * 1024 if found else 0


def _places(cpus: _Cpus, nodes: _Nodes, online: Iterable[int]) -> list[Place]:
    """The place of each CPU that is on. What overlaps, as some hypervisors tell it, belongs to who names it first."""
    left = set(online)
    core: dict[int, int] = {}
    socket: dict[int, Hashable] = {}
    cache: dict[int, Hashable] = {}
    for cpu in sorted(left):
        if cpu in core:
            continue
        threads = {cpu, *(one for one in cpus.core(cpu) if one in left and one not in core)}
        core.update(dict.fromkeys(threads, cpu))
        if cpu not in socket:
            members = cpus.socket(cpu)
            socket.update({one: cpu if members else None for one in {cpu, *members} if one not in socket})
        if cpu not in cache:
            shared = cpus.caches(cpu)
            members = shared.get(3) or (shared.get(2, ()) if set(shared.get(2, ())) - threads else ())
            cache.update({one: cpu if members else None for one in {cpu, *members} if one not in cache})
    anywhere = min(nodes.numbers, default=0)
    own = {first: cpus.node(first) for first in set(core.values()) - nodes.of.keys()} if nodes.numbers else {}
    places = []
    for cpu in sorted(left):
        first = core[cpu]
        held = None if cache[first] is None else (socket[first], cache[first])
        domain = nodes.of.get(first, own.get(first))
        places.append(Place(cpu, first, socket[first], anywhere if domain is None else domain, held))
    return places


def _in_order(places: list[Place]) -> list[Place]:
    """By socket, then by domain and cache, the wider of the two first, then by core: each by its lowest CPU."""
    domains: dict[Hashable, set[int]] = {}
    for place in places:
        if place.cache is not None:
            domains.setdefault(place.cache, set()).add(place.numa)
    across = any(len(held) > 1 for held in domains.values())

    def parts(place: Place) -> list[Hashable]:
        inner = (place.numa, place.cache)
        middle, last = (place.cache, inner) if across else (place.numa, inner)
        return [("socket", place.socket), (place.socket, middle), (place.socket, last), ("core", place.core)]

    lowest: dict[tuple[int, Hashable], int] = {}
    for place in places:
        for level, part in enumerate(parts(place)):
            lowest[level, part] = min(place.cpu, lowest.get((level, part), place.cpu))
    return sorted(places, key=lambda place: [*(lowest[at] for at in enumerate(parts(place))), place.cpu])


def _cards(folder: str) -> Iterator[tuple[str, int | None]]:
    """Adapters, and interfaces that are hardware or stand on it (a bond, a VLAN); bridges of containers are neither."""
    for kind in ("net", "infiniband"):
        for name in _entries(f"{folder}/{kind}"):
            domains = list(_devices(f"{folder}/{kind}/{name}", f"{folder}/{kind}", 0))
            if domains:
                yield name, domains[0] if len(set(domains)) == 1 else None


def _devices(interface: str, folder: str, depth: int) -> Iterator[int | None]:
    """The domain of each piece of hardware below an interface."""
    if os.path.exists(f"{interface}/device"):  # noqa: PTH110
        yield _domain(os.path.realpath(f"{interface}/device"))
    elif depth < 4:  # a VLAN on a bond on two ports is 2
        for entry in _entries(interface):
            if entry.startswith("lower_"):
                yield from _devices(f"{folder}/{entry[len('lower_') :]}", folder, depth + 1)


def _domain(device: str) -> int | None:
    """The domain of a device or of the nearest above it: a virtio device leaves it to its PCI device."""
    for _ in range(4):
        told = _read(f"{device}/numa_node")
        if told:
            return int(told) if told.isdigit() else None
        device = os.path.dirname(device)  # noqa: PTH120
    return None


def _entries(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []
