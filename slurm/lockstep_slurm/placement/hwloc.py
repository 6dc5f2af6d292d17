"""``from_xml``: a machine from hwloc's XML, as ``lstopo machine.xml`` of hwloc 1, 2 and 3 writes it.

What the versions do differently is told by the objects themselves: hwloc 1 has NUMA nodes above their cores, and caches
as ``Cache`` with a depth; 2 and 3 have NUMA nodes beside the cores, as children in memory. A level that an export
leaves out is made up for: no package is one socket, no NUMA node is domain 0, no core is a core for each L1 cache or
else for each CPU, no L3 cache is the L2 cache if cores share one, and else the domain.

Which CPUs: those that are online and that whoever made the export was allowed to use (``allowed_cpuset``): a plan can
give no other to anybody. The CPUs that exist beside them are ``Topology.offline``, since hwloc 2 does not say which of
these are off and which a cgroup only withheld.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lockstep_slurm.placement.assemble import Place, assemble
from lockstep_slurm.placement.errors import TopologyError
from lockstep_slurm.placement.hwloc_document import Document, Object
from lockstep_slurm.placement.topology import NumaDomain, Topology

_DEVICES = {"Bridge", "PCIDev", "OSDev"}
_ORDINARY = {"", "DRAM"}
"""Subtypes of NUMA nodes that hold cores; others (HBM, MCDRAM, NVM, CXL-DRAM, GPUMemory) are memory near some cores."""


def from_xml(text: str) -> Topology:
    """The machine that an hwloc XML export describes.

    Raises ``TopologyError`` for text that is not XML, declares entities, is not hwloc's, or describes no machine or
    several; the message says what is wrong and where.
    """
    document = Document()
    document.read(text)
    machine = document.machine()
    domains = _Domains(document.objects)
    usable, exist = _cpus(document.objects, machine)
    places = _places(document.objects, usable, domains)
    if not places:
        raise TopologyError(f"none of the {len(exist)} CPUs is online and allowed (allowed_cpuset of {machine.where})")
    return assemble(
        places,
        domains.described(document, machine),
        cards=_cards(document, places, domains),
        exist=exist,
        name=document.host,
    )


class _Domains:
    """The NUMA nodes, and which one the CPUs below an object belong to."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.nodes = [one for one in objects if one.kind == "NUMANode"]
        holding = {above for one in objects if one.kind == "PU" for above in one.above() if above.kind == "NUMANode"}
        near: dict[Object, list[Object]] = {}
        for node in self.nodes:
            # hwloc 1 gives memory alone an empty cpuset; 2 that of the cores that it is near to.
            if node.members("cpuset") != set():
                beside = (one for one in node.above() if one.kind != "MemCache")
                near.setdefault(node if node in holding else next(beside, node), []).append(node)
        self._of: dict[Object, Object | None] = {}
        for one in objects:
            inherited = self._of[one.parent] if one.parent else None
            best = min(near.get(one, ()), key=lambda node: (_special(node), node.index), default=inherited)
            if best and inherited and _special(best) and not _special(inherited):
                best = inherited
            self._of[one] = best

    def of(self, cpu: Object) -> int:
        """The number of the domain of a CPU, where no node is described the one that its nodesets name."""
        node = self._of[cpu]
        if node:
            return node.index
        return min(cpu.members("complete_nodeset") or cpu.members("nodeset") or {0})

    def described(self, document: Document, machine: Object) -> list[NumaDomain]:
        if not self.nodes:
            return [NumaDomain(0, _memory(machine))]
        for matrix in document.matrices:
            distances = matrix.between(self.nodes)
            if distances:
                break
        else:
            distances = {}
        return [NumaDomain(node.index, _memory(node), distances.get(node.index, ())) for node in self.nodes]


def _special(node: Object) -> bool:
    return node.values.get("subtype", "") not in _ORDINARY


def _memory(one: Object) -> int:
    value = one.values.get("local_memory", "0")
    if not value.isascii() or not value.isdigit() or len(value) > 20:
        raise TopologyError(f'{one.where}: local_memory "{value[:40]}" is not a number of bytes')
    return int(value)


def _cpus(objects: Sequence[Object], machine: Object) -> tuple[set[int], set[int]]:
    """The CPUs that can be used, and all that exist."""
    present = {one.index for one in objects if one.kind == "PU"}
    usable = set(present)
    for name in ("online_cpuset", "allowed_cpuset"):
        members = machine.members(name)
        if members is not None:
            usable &= members
    return usable, present | (machine.members("complete_cpuset") or set())


def _places(objects: Sequence[Object], usable: set[int], domains: _Domains) -> list[Place]:
    cpus = [one for one in objects if one.kind == "PU" and one.index in usable]
    cores = [one.parts.get("core") or one.parts.get("l1") or one for one in cpus]
    sharing: dict[Object, set[Object]] = {}
    for one, core in zip(cpus, cores):  # noqa: B905 - Python 3.9 has no strict
        if "l2" in one.parts:
            sharing.setdefault(one.parts["l2"], set()).add(core)
    shared = {cache for cache, members in sharing.items() if len(members) > 1}
    places = []
    for one, core in zip(cpus, cores):  # noqa: B905
        l2 = one.parts.get("l2")
        cache = one.parts.get("l3") or (l2 if l2 in shared else None)
        places.append(Place(one.index, core, one.parts.get("socket"), domains.of(one), cache))
    return places


def _cards(document: Document, places: Sequence[Place], domains: _Domains) -> Iterator[tuple[str, int | None]]:
    """Network interfaces and adapters, each with the one domain that has CPUs where its bridge hangs, if it is one."""
    kinds = 16 | 32 if document.version >= 3 else 1 << 2 | 1 << 3
    used = {place.numa for place in places}
    under: dict[Object, set[int]] = {}
    for one in document.objects:
        if one.kind == "PU":
            for parent in one.above():
                under.setdefault(parent, set()).add(domains.of(one))
    for one in document.objects:
        if one.kind != "OSDev" or not one.values.get("name"):
            continue
        kind = int(one.values["osdev_type"]) if one.values.get("osdev_type", "").isdigit() else 0
        if (kind if document.version >= 3 else 1 << min(kind, 30)) & kinds:
            holder = next((parent for parent in one.above() if parent.kind not in _DEVICES), None)
            near = under.get(holder, set()) & used if holder else set()
            if holder and not near and holder.kind == "NUMANode":
                near = {holder.index}
            yield one.values["name"], next(iter(near)) if len(near) == 1 else None
