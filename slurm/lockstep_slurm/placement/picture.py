"""The core map: a node as boxes in boxes, each hardware thread marked with its rank and what runs there; values only.

The terminal (``lockstep plan``) and the job's page draw the same from a ``Topology`` and a ``Placement``:

- Sockets hold NUMA domains, these hold L3 groups, these hold cores, all in the topology's tree order; a core is one
  small cell with one mark per online hardware thread, in the core's order.
- A mark is the local rank's number and a letter: ``c`` compute, ``H`` Horovod's background thread, ``G`` Gloo's socket
  thread, ``X`` the exchange thread, ``W`` oneCCL's workers, ``L`` loaders, ``+`` several communication threads, ``*``
  communication on a CPU that also computes or loads. Without a rank: ``-`` spare (granted, and nothing planned on it),
  ``.`` not granted.
- A rank has one colour, by its number modulo six (``COLOURS``); all but compute threads are drawn in reverse, so that
  they stand out from the compute threads of the same rank. Letters alone tell everything; colours only help.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Optional

from lockstep_slurm.placement.placement import Placement
from lockstep_slurm.placement.request import ROLES
from lockstep_slurm.placement.topology import Core, NumaDomain, Topology

COMPUTE, SEVERAL, BOTH, LOADER, SPARE, FOREIGN = "c", "+", "*", "L", "-", "."
LETTERS = {"horovod": "H", "gloo": "G", "exchange": "X", "ccl": "W"}
MEANINGS = {
    COMPUTE: "compute",
    "H": "Horovod's background thread",
    "G": "Gloo's socket thread",
    "X": "the exchange thread",
    "W": "oneCCL's workers",
    SEVERAL: "several communication threads",
    BOTH: "communication on a CPU of other work",
    LOADER: "loaders",
    SPARE: "spare",
    FOREIGN: "not granted",
}
"""What the letters mean, in the legend's order."""
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""Of the local ranks, by number modulo six."""


@dataclass(frozen=True)
class Mark:
    """One hardware thread."""

    cpu: int
    """Linux's number."""
    letter: str
    """One of ``MEANINGS``."""
    ranks: tuple[int, ...] = ()
    """The local ranks that it belongs to: one; several where a degraded plan shares it; none: nothing is planned."""

    @property
    def text(self) -> str:
        """Rank and letter, such as ``0c``; ``0,1c`` where ranks share it."""
        return ",".join(map(str, self.ranks)) + self.letter


@dataclass(frozen=True)
class Cell:
    """One core."""

    marks: tuple[Mark, ...]

    @property
    def text(self) -> str:
        """``0cH`` for the marks 0c and 0H: the rank is said once where it is the same."""
        owners = {mark.ranks for mark in self.marks if mark.ranks}
        if len(owners) != 1 or not self.marks[0].ranks:
            return "".join(mark.text for mark in self.marks)
        return self.marks[0].text + "".join(mark.letter for mark in self.marks[1:])


@dataclass(frozen=True)
class Group:
    """Cores that share a last-level cache."""

    number: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Domain:
    """The cores of one NUMA domain within one socket."""

    number: int
    memory: int
    """Bytes."""
    cards: tuple[str, ...]
    groups: tuple[Group, ...]
    """Empty: memory alone."""


@dataclass(frozen=True)
class Socket:
    """One socket."""

    number: int
    domains: tuple[Domain, ...]


@dataclass(frozen=True)
class Picture:
    """One node."""

    sockets: tuple[Socket, ...]
    memory_alone: tuple[Domain, ...]
    """NUMA domains without cores."""
    cards: tuple[str, ...]
    """Network cards that belong to no domain."""
    offline: tuple[int, ...]
    legend: tuple[tuple[str, str], ...]
    """The letters that occur, and their meanings."""


def picture(topology: Topology, placement: Placement, granted: Optional[Collection[int]] = None) -> Picture:  # noqa: UP045
    """The node with what is planned on it; ``granted`` None: all of it.

    Which hardware threads a plan leaves idle on a rank's own cores is told by ``granted`` and the plan alone: they are
    spare like any other.
    """
    marks = _marks(topology, placement, set(topology.cpus) if granted is None else set(granted))
    domains = {domain.number: domain for domain in topology.numa}
    sockets = tuple(
        Socket(
            number,
            tuple(
                _domain(numa, list(of_domain), domains, topology, marks)
                for numa, of_domain in groupby(of_socket, lambda core: core.numa)
            ),
        )
        for number, of_socket in groupby(topology.cores, lambda core: core.socket)
    )
    with_cores = {core.numa for core in topology.cores}
    used = {mark.letter for mark in marks.values()}
    return Picture(
        sockets=sockets,
        memory_alone=tuple(
            Domain(one.number, one.memory, _cards(topology, one.number), ())
            for one in topology.numa
            if one.number not in with_cores
        ),
        cards=_cards(topology, None),
        offline=topology.offline,
        legend=tuple((letter, meaning) for letter, meaning in MEANINGS.items() if letter in used),
    )


def _domain(
    number: int, cores: Sequence[Core], domains: dict[int, NumaDomain], topology: Topology, marks: dict[int, Mark]
) -> Domain:
    groups = tuple(
        Group(l3, tuple(Cell(tuple(marks[cpu] for cpu in core.cpus)) for core in of_group))
        for l3, of_group in groupby(cores, lambda core: core.l3)
    )
    memory = domains[number].memory if number in domains else 0
    return Domain(number, memory, _cards(topology, number), groups)


def _cards(topology: Topology, numa: Optional[int]) -> tuple[str, ...]:  # noqa: UP045
    return tuple(card.name for card in topology.cards if card.numa == numa)


def _marks(topology: Topology, placement: Placement, granted: Collection[int]) -> dict[int, Mark]:
    uses: dict[int, list[tuple[int, str]]] = {}
    for rank in placement.ranks:
        for cpu in rank.compute:
            uses.setdefault(cpu, []).append((rank.local_rank, COMPUTE))
        for role in ROLES:
            for cpu in dict.fromkeys(getattr(rank.communication, role)):
                uses.setdefault(cpu, []).append((rank.local_rank, LETTERS[role]))
        for cpu in rank.loader:
            uses.setdefault(cpu, []).append((rank.local_rank, LOADER))
    found = {}
    for cpu in topology.cpus:
        here = uses.get(cpu, [])
        ranks = tuple(dict.fromkeys(rank for rank, _ in here))
        found[cpu] = Mark(cpu, _letter({letter for _, letter in here}, granted=cpu in granted), ranks)
    return found


def _letter(letters: Iterable[str], *, granted: bool) -> str:
    there = set(letters)
    if not there:
        return SPARE if granted else FOREIGN
    if len(there) == 1:
        return there.pop()
    return BOTH if there & {COMPUTE, LOADER} else SEVERAL
