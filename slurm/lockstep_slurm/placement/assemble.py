"""From the place of each hardware thread, as any description of a machine gives it, to a ``Topology``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Optional

from lockstep_slurm.placement.cpulist import MOST
from lockstep_slurm.placement.errors import TopologyError
from lockstep_slurm.placement.topology import Card, Core, NumaDomain, Topology


class Place(NamedTuple):
    """One CPU and what it is part of. Parts are keys of any kind, the same for CPUs of the same part."""

    cpu: int
    core: Hashable
    socket: Hashable
    numa: int
    cache: Hashable = None
    """The last-level cache; None where the description has none: then the CPUs of one socket and domain are a group."""


def assemble(
    places: Sequence[Place],
    domains: Iterable[NumaDomain],
    *,
    cards: Iterable[tuple[str, Optional[int]]] = (),  # noqa: UP045 - read by Python 3.9 on compute nodes
    exist: Iterable[int] = (),
    name: str = "",
) -> Topology:
    """The machine whose CPUs that can be used are ``places``, in the tree's order.

    ``domains`` are those that are described; one that a place names and that is not among them is added without
    memory. ``cards`` are names with their domain. ``exist`` are CPUs that exist, those in ``places`` or not. Raises
    ``TopologyError`` for no places, for a CPU that has two, and for numbers that no Linux has.
    """
    if not places:
        raise TopologyError("the description has no CPU that can be used")
    seen: set[int] = set()
    for place in places:
        if not 0 <= place.cpu < MOST:
            raise TopologyError(f"CPU {place.cpu}: a CPU's number is from 0 to {MOST - 1}")
        if place.cpu in seen:
            raise TopologyError(f"CPU {place.cpu} is described twice")
        seen.add(place.cpu)
    known = _domains(domains, [place.numa for place in places])
    return Topology(
        cores=_cores(places),
        numa=known,
        cards=_cards(cards, known, {place.numa for place in places}),
        offline=tuple(sorted(set(exist) - seen)),
        name=name,
    )


def _cores(places: Sequence[Place]) -> tuple[Core, ...]:
    sockets: dict[Hashable, int] = {}
    cpus: dict[Hashable, list[int]] = {}
    first: dict[Hashable, Place] = {}
    for place in places:
        sockets.setdefault(place.socket, len(sockets))
        cpus.setdefault(place.core, []).append(place.cpu)
        first.setdefault(place.core, place)
    # Stable: only a socket that a crooked tree tells in pieces is moved together.
    order = sorted(first, key=lambda core: sockets[first[core].socket])
    caches: dict[Hashable, int] = {}
    cores = []
    for core in order:
        place = first[core]
        group = (place.socket, place.numa) if place.cache is None else (place.cache,)
        cores.append(Core(tuple(cpus[core]), sockets[place.socket], place.numa, caches.setdefault(group, len(caches))))
    return tuple(cores)


def _domains(described: Iterable[NumaDomain], used: Sequence[int]) -> tuple[NumaDomain, ...]:
    found = {domain.number: domain for domain in described}
    told = dict(found)
    for number in used:
        found.setdefault(number, NumaDomain(number, 0))
    for number in found:
        if not 0 <= number < MOST:
            raise TopologyError(f"NUMA domain {number}: a domain's number is from 0 to {MOST - 1}")
    if len(found) != len(told) or any(len(domain.distances) != len(found) for domain in told.values()):
        found = {number: NumaDomain(number, domain.memory) for number, domain in found.items()}
    return tuple(found[number] for number in sorted(found))


def _cards(
    cards: Iterable[tuple[str, Optional[int]]],  # noqa: UP045
    domains: Sequence[NumaDomain],
    used: set[int],
) -> tuple[Card, ...]:
    """By name, each once. Where only one domain has CPUs, every card is nearest to it, whatever the firmware says."""
    numbers = {domain.number for domain in domains}
    found: dict[str, Optional[int]] = {}  # noqa: UP045
    for name, domain in cards:
        near = next(iter(used)) if len(used) == 1 else domain if domain in numbers else None
        if found.get(name) is None:
            found[name] = near
    return tuple(Card(name, found[name]) for name in sorted(found))
