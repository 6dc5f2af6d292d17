"""``Topology``: one machine's sockets, NUMA domains, L3 groups, cores, hardware threads and network cards.

CPU numbers are Linux's throughout. The order of the cores is the tree's (socket, NUMA domain, L3 group, core), never
that of the numbers: firmware numbers CPUs in blocks, interleaved, or as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Core:
    """One physical core with at least one online hardware thread."""

    cpus: tuple[int, ...]
    """Its online hardware threads in the tree's order; the first is the one that computes where SMT is not used."""
    socket: int
    """Number of the socket in the tree's order, from 0."""
    numa: int
    """Linux's number of the NUMA domain that the core belongs to (0 where the machine has no NUMA)."""
    l3: int
    """Number of the group of cores that share a last-level cache, in the tree's order over the machine, from 0."""


@dataclass(frozen=True)
class NumaDomain:
    """One NUMA domain: of cores with memory, of cores alone, or of memory alone."""

    number: int
    """Linux's, as in /sys/devices/system/node/node<number>."""
    memory: int
    """Bytes; 0 for a domain without memory."""
    distances: tuple[int, ...] = ()
    """To each domain of ``Topology.numa`` in its order, in the firmware's units (10: itself); empty: not known."""


@dataclass(frozen=True)
class Card:
    """One network interface or adapter."""

    name: str
    """Linux's: eth0, ib0, mlx5_0."""
    numa: Optional[int]  # noqa: UP045 - read by Python 3.9 on compute nodes
    """The NUMA domain it is attached to; None where the firmware does not say."""


@dataclass(frozen=True)
class Topology:
    """One machine. Every online CPU is in exactly one core."""

    cores: tuple[Core, ...]
    """In the tree's order."""
    numa: tuple[NumaDomain, ...]
    """By number; domains of memory alone are among them."""
    cards: tuple[Card, ...] = ()
    offline: tuple[int, ...] = ()
    """CPUs that exist and are off."""
    name: str = ""
    """Of the machine, where the description has one."""

    @property
    def cpus(self) -> tuple[int, ...]:
        """All online CPUs, core by core."""
        return tuple(cpu for core in self.cores for cpu in core.cpus)

    @property
    def threads_per_core(self) -> int:
        """The most hardware threads that a core has."""
        return max(len(core.cpus) for core in self.cores)

    def document(self) -> dict[str, Any]:
        """As JSON takes it; ``Topology.parse`` is the inverse."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Topology:
        """From ``document()``'s form."""
        return cls(
            cores=tuple(
                Core(tuple(core["cpus"]), core["socket"], core["numa"], core["l3"]) for core in document["cores"]
            ),
            numa=tuple(NumaDomain(one["number"], one["memory"], tuple(one["distances"])) for one in document["numa"]),
            cards=tuple(Card(card["name"], card["numa"]) for card in document["cards"]),
            offline=tuple(document["offline"]),
            name=document["name"],
        )
