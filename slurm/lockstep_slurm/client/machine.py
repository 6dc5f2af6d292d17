"""This machine as Slurm would describe a node: CPUs, sockets, cores, hardware threads, memory (from Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Shape:
    """A node's figures; ``memory`` in MiB."""

    cpus: int
    """CPUs that this process may use."""
    sockets: int
    cores_per_socket: int
    threads_per_core: int
    memory: int


def shape() -> Shape:
    """What Linux says of this machine; one core per CPU and one socket where sysfs does not tell."""
    cpus = sorted(os.sched_getaffinity(0))
    places = [place for cpu in cpus if (place := _place(cpu)) is not None]
    sockets = len({socket for socket, _ in places}) or 1
    cores = len(set(places)) or len(cpus)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return Shape(len(cpus), sockets, max(1, cores // sockets), max(1, len(cpus) // cores), memory)


def _place(cpu: int) -> tuple[int, int] | None:
    """Socket and core of a CPU, as the kernel numbers them."""
    topology = _CPUS / f"cpu{cpu}" / "topology"
    try:
        return int((topology / "physical_package_id").read_text()), int((topology / "core_id").read_text())
    except FileNotFoundError:
        return None
