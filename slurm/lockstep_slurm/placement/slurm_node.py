"""A machine as Slurm's node record has it, and Slurm's own CPU ids as Linux's: converted here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lockstep_slurm.placement.assemble import Place, assemble
from lockstep_slurm.placement.cpulist import MOST
from lockstep_slurm.placement.errors import TopologyError
from lockstep_slurm.placement.topology import NumaDomain, Topology

MIB = 1 << 20


def from_slurm(record: Mapping[str, Any]) -> Topology:
    """The machine of a node record as ``sinfo --json`` prints it (22.05): enough for a picture.

    ``sockets`` are those of each of the ``boards``, ``cores`` those of a socket, ``threads`` those of a core,
    ``real_memory`` is in MiB. The record knows neither NUMA domains nor caches nor Linux's numbers: each socket is one
    domain with its share of the memory, and CPUs are numbered as Linux most often numbers them on x86, all first
    hardware threads before all second ones. What runs on the node reads the machine itself (``from_sysfs``).

    Raises ``TopologyError`` for a record that lacks one of these or has no whole number above 0 there.
    """
    boards = _number(record, "boards") if "boards" in record else 1
    sockets, cores, threads = (_number(record, key) for key in ("sockets", "cores", "threads"))
    sockets *= boards
    if sockets * cores * threads > MOST:
        raise TopologyError(f"a node of {sockets} x {cores} x {threads} CPUs: no Linux has more than {MOST}")
    memory = int(record.get("real_memory") or 0) * MIB // sockets
    places = [
        Place((thread * sockets + socket) * cores + core, (socket, core), socket, socket)
        for socket in range(sockets)
        for core in range(cores)
        for thread in range(threads)
    ]
    domains = [NumaDomain(socket, memory) for socket in range(sockets)]
    return assemble(places, domains, name=str(record.get("name", "")))


def linux_ids(topology: Topology, abstract: Sequence[int]) -> tuple[int, ...]:
    """Linux's numbers of Slurm's own ids on this machine, in the same order.

    Slurm's ids, such as ``CPU_IDs`` of ``scontrol show job -d``, count hardware threads socket by socket and core by
    core, as hwloc orders them (the topology's tree order); masks, ``map_cpu`` and the kernel have Linux's. Raises
    ``TopologyError`` for an id that the machine does not have.
    """
    cpus = topology.cpus
    strange = [number for number in abstract if not 0 <= number < len(cpus)]
    if strange:
        raise TopologyError(
            f"Slurm's CPU id {strange[0]}: machine {topology.name or 'of this topology'} has 0 to {len(cpus) - 1}"
        )
    return tuple(cpus[number] for number in abstract)


def abstract_ids(topology: Topology, cpus: Sequence[int]) -> tuple[int, ...]:
    """The inverse of ``linux_ids``. Raises ``TopologyError`` for a CPU that is off or not there."""
    places = {cpu: place for place, cpu in enumerate(topology.cpus)}
    strange = [cpu for cpu in cpus if cpu not in places]
    if strange:
        raise TopologyError(
            f"CPU {strange[0]}: machine {topology.name or 'of this topology'} has no such CPU that is on"
        )
    return tuple(places[cpu] for cpu in cpus)


def _number(record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TopologyError(f"a node record's {key!r} is {value!r}; it must be a whole number above 0")
    return value
