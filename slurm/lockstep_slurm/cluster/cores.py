"""Which cores of this machine each node of a one-machine cluster gets: read from sysfs, shared out purely."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """This machine as Slurm counts it; ``cores`` in Slurm's order, each with the Linux ids of its hardware threads."""

    sockets: int
    cores_per_socket: int
    threads_per_core: int
    cores: tuple[tuple[int, ...], ...]

    @property
    def cpus(self) -> int:
        """Hardware threads in all."""
        return self.sockets * self.cores_per_socket * self.threads_per_core


@dataclass(frozen=True)
class NodeCores:
    """What one node has. ``reserved`` are Slurm's abstract CPU ids (``CpuSpecList``), ``cpus`` Linux ids."""

    node: str
    cpus: tuple[int, ...]
    reserved: tuple[int, ...]


def read_machine(sysfs: Path = SYSFS) -> Machine:
    """The machine's cores in Slurm's abstract order: by socket, then core, then hardware thread.

    hwloc, from which slurmd takes its map, orders objects by their lowest CPU, and so does this. A machine whose
    cores are not all alike, or that hides its topology (gVisor), is taken as one socket of single-threaded cores.
    """
    sockets: dict[int, dict[int, list[int]]] = {}
    cpus = sorted(int(entry.name[3:]) for entry in sysfs.glob("cpu[0-9]*") if _online(entry))
    try:
        for cpu in cpus:
            topology = sysfs / f"cpu{cpu}" / "topology"
            package = int((topology / "physical_package_id").read_text())
            siblings = (topology / "thread_siblings_list").read_text().strip()
            first = int(siblings.replace("-", ",").split(",", maxsplit=1)[0])
            sockets.setdefault(package, {}).setdefault(first, []).append(cpu)
    except FileNotFoundError:
        sockets = {}
    per_socket = [tuple(tuple(threads) for threads in cores.values()) for cores in sockets.values()]
    alike = len({len(cores) for cores in per_socket}) == 1 and len({len(t) for cores in per_socket for t in cores}) == 1
    if not alike:
        flat = tuple((cpu,) for cpu in cpus or range(os.cpu_count() or 1))
        return Machine(1, len(flat), 1, flat)
    cores = tuple(core for socket in per_socket for core in socket)
    return Machine(len(per_socket), len(per_socket[0]), len(cores[0]), cores)


def _online(entry: Path) -> bool:
    """Whether this CPU runs; cpu0 usually has no such file."""
    switch = entry / "online"
    return not switch.exists() or switch.read_text().strip() == "1"


def share_out(
    machine: Machine, nodes: Sequence[str], allowed: Sequence[int]
) -> tuple[tuple[NodeCores, ...], str | None]:
    """Gives every node whole cores of its own, equally many; returns the shares and, where cores are shared, a warning.

    ``allowed``: the Linux ids that this process may run on (a container may have fewer than the machine).
    What is left after equal shares is left to the machine itself. With more nodes than cores, nodes take turns.
    """
    usable = [index for index, core in enumerate(machine.cores) if set(core) <= set(allowed)] or [0]
    each = len(usable) // len(nodes)
    shares = [usable[i * each : (i + 1) * each] if each else [usable[i % len(usable)]] for i in range(len(nodes))]
    warning = None
    if not each:
        warning = (
            f"{len(nodes)} nodes share {len(usable)} cores: nodes slow each other down, so no time measured here "
            "says anything about a real one."
        )
    return tuple(_node(machine, node, share) for node, share in zip(nodes, shares, strict=True)), warning


def _node(machine: Machine, node: str, share: Sequence[int]) -> NodeCores:
    """The node that has these cores (indices into ``machine.cores``): every other core is reserved on it."""
    threads = machine.threads_per_core
    others = [index for index in range(len(machine.cores)) if index not in set(share)]
    return NodeCores(
        node,
        cpus=tuple(sorted(cpu for index in share for cpu in machine.cores[index])),
        reserved=tuple(index * threads + thread for index in others for thread in range(threads)),
    )
