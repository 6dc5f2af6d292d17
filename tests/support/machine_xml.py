"""A ``Topology`` as the XML that hwloc would write of it, in the form of hwloc 1, 2 or 3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from xml.sax.saxutils import quoteattr

from lockstep_slurm.placement import Core, Topology

_NETWORK = {1: 2, 2: 2, 3: 16}
_OPENFABRICS = {1: 3, 2: 3, 3: 32}


def xml_of(topology: Topology, version: int) -> str:
    """As an export without the CPUs that are off; a card of no domain, or of memory alone, hangs from the machine."""
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<!DOCTYPE topology SYSTEM "hwloc{"" if version == 1 else version}.dtd">',
            "<topology>" if version == 1 else f'<topology version="{version}.0">',
            *_Writer(topology, version).machine(),
            "</topology>",
        ]
    )


class _Writer:
    def __init__(self, topology: Topology, version: int) -> None:
        self.topology = topology
        self.version = version
        self.memory = {domain.number: domain.memory for domain in topology.numa}
        self.used = {core.numa for core in topology.cores}

    def machine(self) -> Iterable[str]:
        cpus, exist = _set(self.topology.cpus), _set([*self.topology.cpus, *self.topology.offline])
        more = f' online_cpuset="{cpus}"' if self.version == 1 else ""
        more += f' complete_cpuset="{exist}" allowed_cpuset="{cpus}"'
        yield f'<object type="Machine" os_index="0" cpuset="{cpus}"{more}>'
        if self.topology.name:
            yield f'<info name="HostName" value={quoteattr(self.topology.name)}/>'
        whole = len(self.used) == 1
        if self.version == 1:
            levels = self._levels()
            at = 1 + [kind for kind, _ in levels].index("numa")
            yield from self._old_distances(at)
        for domain in self.topology.numa:
            if domain.number not in self.used:
                yield from self._node(domain.number, ())
            elif whole and self.version > 1:
                yield from self._node(domain.number, self.topology.cpus)
        yield from self._level(list(self.topology.cores), self._levels())
        for card in self.topology.cards:
            if card.numa is None or card.numa not in self.used or (whole and self.version > 1):
                yield from self._card(card.name)
        yield "</object>"
        if self.version > 1:
            yield from self._distances()

    def _levels(self) -> list[tuple[str, Callable[[Core], int]]]:
        domains: dict[int, set[int]] = {}
        for core in self.topology.cores:
            domains.setdefault(core.l3, set()).add(core.numa)
        across = any(len(held) > 1 for held in domains.values())
        socket, numa, cache = (
            ("socket", lambda core: core.socket),
            ("numa", lambda core: core.numa),
            ("l3", lambda core: core.l3),
        )
        if len(self.used) == 1:
            return [numa, socket, cache]
        return [socket, cache, numa] if across else [socket, numa, cache]

    def _level(self, cores: Sequence[Core], levels: list[tuple[str, Callable[[Core], int]]]) -> Iterable[str]:
        if not levels:
            for core in cores:
                yield f'<object type="Core" cpuset="{_set(core.cpus)}">'
                for cpu in core.cpus:
                    yield f'<object type="PU" os_index="{cpu}" cpuset="{_set([cpu])}"/>'
                yield "</object>"
            return
        (kind, key), *rest = levels
        for number, members in groupby(cores, key=key):
            part = list(members)
            cpus = [cpu for core in part for cpu in core.cpus]
            yield self._open(kind, number, cpus)
            if kind == "numa" and self.version > 1 and len(self.used) > 1:
                yield from self._node(number, cpus)
            yield from self._level(part, rest)
            if kind == "numa" and not (len(self.used) == 1 and self.version > 1):
                for card in self.topology.cards:
                    if card.numa == number:
                        yield from self._card(card.name)
            yield "</object>"

    def _open(self, kind: str, number: int, cpus: Sequence[int]) -> str:
        if kind == "socket":
            return f'<object type="Package" os_index="{number}" cpuset="{_set(cpus)}">'
        if kind == "l3":
            what = 'type="Cache" depth="3"' if self.version == 1 else 'type="L3Cache" depth="3" cache_type="0"'
            return f'<object {what} cpuset="{_set(cpus)}">'
        if self.version == 1:
            values = f'os_index="{number}" cpuset="{_set(cpus)}" local_memory="{self.memory[number]}"'
            return f'<object type="NUMANode" {values}>'
        return f'<object type="Group" cpuset="{_set(cpus)}">'

    def _node(self, number: int, cpus: Sequence[int]) -> Iterable[str]:
        """A node beside its cores (hwloc 2), or of memory alone."""
        alone = number not in self.used
        shown = self.topology.cpus if alone and self.version > 1 else cpus
        subtype = ' subtype="HBM"' if alone and self.version > 1 else ""
        memory = f' local_memory="{self.memory[number]}"' if self.memory[number] else ""
        yield f'<object type="NUMANode"{subtype} os_index="{number}" cpuset="{_set(shown)}"{memory}/>'

    def _card(self, name: str) -> Iterable[str]:
        kinds = _OPENFABRICS if name.startswith("mlx") else _NETWORK
        yield '<object type="Bridge" bridge_type="0-1"><object type="Bridge" bridge_type="1-1"><object type="PCIDev">'
        yield f'<object type="OSDev" name={quoteattr(name)} osdev_type="{kinds[self.version]}"/>'
        yield "</object></object></object>"

    def _old_distances(self, level: int) -> Iterable[str]:
        """Hwloc 1: in the tree's order, and only of nodes that are all at one level."""
        domains = {domain.number: domain for domain in self.topology.numa}
        order = list(dict.fromkeys(core.numa for core in self.topology.cores))
        if len(order) < len(domains) or not self.topology.numa[0].distances:
            return
        at = {domain.number: place for place, domain in enumerate(self.topology.numa)}
        yield f'<distances nbobjs="{len(order)}" relative_depth="{level}" latency_base="10.000000">'
        for one in order:
            for other in order:
                yield f'<latency value="{domains[one].distances[at[other]] / 10:.6f}"/>'
        yield "</distances>"

    def _distances(self) -> Iterable[str]:
        numa = self.topology.numa
        if numa[0].distances:
            yield f'<distances2 type="NUMANode" nbobjs="{len(numa)}" kind="5" name="NUMALatency" indexing="os">'
            yield f'<indexes length="9">{" ".join(str(domain.number) for domain in numa)} </indexes>'
            for domain in numa:  # in pieces, as hwloc writes what is long
                yield f'<u64values length="9">{" ".join(map(str, domain.distances))} </u64values>'
            yield "</distances2>"


def _set(cpus: Iterable[int]) -> str:
    bits = sum(1 << cpu for cpu in cpus)
    words = []
    while bits:
        words.append(f"0x{bits & 0xFFFFFFFF:08x}" if bits & 0xFFFFFFFF else "")
        bits >>= 32
    return (",".join(reversed(words)) or "0x0").removesuffix(",") + (",0x0" if words and not words[0] else "")
