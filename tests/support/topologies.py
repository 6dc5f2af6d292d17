"""Machines of every kind that ``Topology`` can say, for properties that must hold on all of them.

``topologies()``       a hypothesis strategy: 1-4 sockets, 1-4 NUMA domains each, domains without memory and of memory
                       alone, one domain over all sockets, L3 groups inside a domain, over a socket or none, cores of
                       1-8 hardware threads, unlike cores, CPUs that are off, any numbering, network cards
``relabelled(t, n)``   the same tree with other CPU numbers
``in_linux_order(t)``  the same machine as Linux's files can tell it: siblings in the order of their lowest CPU
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from hypothesis import strategies as st

from lockstep_slurm.placement import Card, Core, NumaDomain, Topology

GIB = 1 << 30


@dataclass(frozen=True)
class _Place:
    """Where one core sits, before anything has a number: the socket, domain and cache it is under."""

    socket: int
    domain: int
    l3: tuple[int, ...]
    threads: int


@st.composite
def topologies(draw: st.DrawFn, *, max_cpus: int = 160) -> Topology:
    """Any machine, of at most ``max_cpus`` CPUs or one thread per core more than that."""
    places, domains = _tree(draw, max_cpus)
    numbers = _numbers(draw, places)
    off = _off(draw, sorted(number for core in numbers for number in core))
    sockets: dict[int, int] = {}
    groups: dict[tuple[int, ...], int] = {}
    names = _domain_numbers(draw, domains)
    cores = []
    for place, cpus in zip(places, numbers, strict=True):
        online = tuple(cpu for cpu in cpus if cpu not in off)
        if online:
            socket = sockets.setdefault(place.socket, len(sockets))
            group = groups.setdefault(place.l3, len(groups))
            cores.append(Core(online, socket, names[place.domain], group))
    numa = _numa(draw, sorted(names), used={core.numa for core in cores})
    return Topology(tuple(cores), numa, _cards(draw, cores, sorted(names)), tuple(sorted(off)))


def _tree(draw: st.DrawFn, max_cpus: int) -> tuple[list[_Place], int]:
    """The cores in the tree's order, and the number of domains, those of memory alone last."""
    whole = draw(st.sampled_from([False, False, False, True]))
    caches = draw(st.sampled_from(["in domain", "in domain", "in domain", "socket", "none"]))
    threads = draw(st.integers(1, 8))
    unlike = draw(st.sampled_from([0, 0, 0, draw(st.integers(1, 8))]))
    places: list[_Place] = []
    domains = 1 if whole else 0
    left = max_cpus
    for socket in range(draw(st.integers(1, 4))):
        for _ in range(1 if whole else draw(st.integers(1, 4))):
            domain = 0 if whole else domains
            domains += not whole
            for cache in range(draw(st.integers(1, 3)) if caches == "in domain" else 1):
                l3 = (socket,) if caches == "socket" else (socket, domain, cache)
                for core in range(draw(st.integers(1, 4))):
                    each = unlike if unlike and core % 2 else threads
                    if left < each and places:
                        break
                    left -= each
                    places.append(_Place(socket, domain, l3, each))
    return places, domains + draw(st.integers(0, 2))


def _numbers(draw: st.DrawFn, places: list[_Place]) -> list[list[int]]:
    """Linux's numbers of each core's hardware threads: as firmwares number them, and as none does."""
    threads = [(core, thread) for core, place in enumerate(places) for thread in range(place.threads)]
    kind = draw(st.sampled_from(["in order", "threads last", "sockets in turn", "shuffled", "sparse"]))
    if kind == "threads last":
        threads.sort(key=lambda one: (one[1], one[0]))
    elif kind == "sockets in turn":
        nth = {core: sum(p.socket == place.socket for p in places[:core]) for core, place in enumerate(places)}
        threads.sort(key=lambda one: (one[1], nth[one[0]], places[one[0]].socket))
    elif kind != "in order":
        random.Random(draw(st.integers(0, 1 << 16))).shuffle(threads)
    stride = draw(st.integers(2, 5)) if kind == "sparse" else 1
    found: list[list[int]] = [[] for _ in places]
    for position, (core, _) in enumerate(threads):
        found[core].append(position * stride)
    return found if kind == "shuffled" else [sorted(cpus) for cpus in found]


def _off(draw: st.DrawFn, cpus: list[int]) -> set[int]:
    chosen = draw(st.sampled_from(["none", "none", "some", "many"]))
    if chosen == "none":
        return set()
    most = len(cpus) - 1 if chosen == "many" else min(4, len(cpus) - 1)
    return draw(st.sets(st.sampled_from(cpus), max_size=most))


def _domain_numbers(draw: st.DrawFn, domains: int) -> list[int]:
    kind = draw(st.sampled_from(["in order", "in order", "shuffled", "sparse"]))
    numbers = list(range(0, domains * 8, 8) if kind == "sparse" else range(domains))
    if kind == "shuffled":
        random.Random(draw(st.integers(0, 1 << 16))).shuffle(numbers)
    return numbers


def _numa(draw: st.DrawFn, numbers: list[int], *, used: set[int]) -> tuple[NumaDomain, ...]:
    told = draw(st.booleans())
    memory = {number: draw(st.sampled_from([16 * GIB, 16 * GIB, 64 * GIB, 0])) for number in numbers}
    if not any(memory.values()):  # no machine is without memory; a domain of memory alone is not without it
        memory[min(used)] = 16 * GIB
    return tuple(
        NumaDomain(
            number,
            memory[number] if number in used else memory[number] or GIB,
            tuple(10 if other == number else 20 + abs(other - number) for other in numbers) if told else (),
        )
        for number in numbers
    )


def _cards(draw: st.DrawFn, cores: list[Core], numbers: list[int]) -> tuple[Card, ...]:
    names = draw(st.sets(st.sampled_from(["eth0", "eth1", "hsn0", "ib0", "mlx5_0"]), max_size=3))
    used = {core.numa for core in cores}
    if len(used) == 1:  # a card can be nearest to no other domain
        return tuple(Card(name, *used) for name in sorted(names))
    return tuple(Card(name, draw(st.none() | st.sampled_from(numbers))) for name in sorted(names))


def relabelled(topology: Topology, numbers: Mapping[int, int] | Callable[[int], int]) -> Topology:
    """The same tree, its CPUs (those that are off too) numbered by ``numbers``, which must give each its own."""
    number = numbers if callable(numbers) else numbers.__getitem__
    cores = tuple(replace(core, cpus=tuple(number(cpu) for cpu in core.cpus)) for core in topology.cores)
    return replace(topology, cores=cores, offline=tuple(sorted(number(cpu) for cpu in topology.offline)))


def in_linux_order(topology: Topology) -> Topology:
    """The same machine with the siblings at every level in the order of their lowest CPU that is on."""

    def level(cores: list[Core], keys: list[Callable[[Core], int]]) -> list[Core]:
        if not keys:
            return sorted(cores, key=lambda core: core.cpus)
        first, *rest = keys
        parts = [list(part) for _, part in groupby(sorted(cores, key=first), key=first)]
        parts.sort(key=lambda part: min(cpu for core in part for cpu in core.cpus))
        return [core for part in parts for core in level(part, rest)]

    sorted_threads = [replace(core, cpus=tuple(sorted(core.cpus))) for core in topology.cores]
    outer = _outer(topology)
    cores = level(sorted_threads, [lambda core: core.socket, *outer])
    sockets = {number: at for at, number in enumerate(dict.fromkeys(core.socket for core in cores))}
    groups = {number: at for at, number in enumerate(dict.fromkeys(core.l3 for core in cores))}
    return replace(
        topology, cores=tuple(replace(core, socket=sockets[core.socket], l3=groups[core.l3]) for core in cores)
    )


def _outer(topology: Topology) -> list[Callable[[Core], int]]:
    """The two middle levels, the wider first: a cache may hold several domains, or a domain several caches."""
    domains: dict[int, set[int]] = {}
    for core in topology.cores:
        domains.setdefault(core.l3, set()).add(core.numa)
    levels: list[Callable[[Core], int]] = [lambda core: core.numa, lambda core: core.l3]
    return levels[::-1] if any(len(held) > 1 for held in domains.values()) else levels
