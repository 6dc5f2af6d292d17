"""The CPUs that were granted, as cores in tree order, and their division among ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Optional

from lockstep_slurm.placement.cpulist import compress
from lockstep_slurm.placement.distribute import Unit, distribute
from lockstep_slurm.placement.errors import PlacementError
from lockstep_slurm.placement.request import MEMORY, POLICIES, ROLES, Request
from lockstep_slurm.placement.topology import Topology


def granted_cores(topology: Topology, granted: Sequence[int]) -> list[Unit]:
    """The cores with a granted CPU, in tree order, each with those CPUs of it that were granted.

    Raises ``PlacementError`` for no CPU, one that is named twice, is off, or that the machine does not have.
    """
    if not granted:
        raise PlacementError("no CPU was granted; ask for at least one per rank")
    wanted = set(granted)
    if len(wanted) != len(granted):
        twice = sorted(cpu for cpu in wanted if list(granted).count(cpu) > 1)
        raise PlacementError(f"a CPU is named twice in {sorted(granted)}: {compress(twice)}")
    known = topology.cpus
    if strange := wanted.difference(known):
        off = strange.intersection(topology.offline)
        raise PlacementError(
            f"CPU {compress(off)} was granted and is off; switch it on, or take it out of the grant"
            if off
            else f"CPU {compress(strange)} was granted, and the machine{_named(topology)} has none of that number; "
            f"it has {compress(known)}: give the topology of the node that the grant is from"
        )
    cores = [
        (place, core, tuple(cpu for cpu in core.cpus if cpu in wanted)) for place, core in enumerate(topology.cores)
    ]
    found = [(place, core, cpus) for place, core, cpus in cores if cpus]
    return [Unit(at, place, cpus, core.socket, core.numa, core.l3) for at, (place, core, cpus) in enumerate(found)]


def whole_cores(
    cores: Sequence[Unit],
    ranks: int,
    cpus_per_rank: Optional[int],  # noqa: UP045
    *,
    tidy: bool,
) -> list[list[Unit]]:
    """Equal shares of cores, one core at least per rank; at most ``cpus_per_rank`` CPUs each."""
    shares = distribute(cores, ranks, fair_share(cores, ranks, cpus_per_rank), tidy=tidy)
    return shares if cpus_per_rank is None else [_capped(share, cpus_per_rank) for share in shares]


def _capped(share: list[Unit], most: int) -> list[Unit]:
    """Without the siblings of the last cores that are more than ``most`` CPUs in all; every core keeps one CPU."""
    over = sum(len(unit.cpus) for unit in share) - most
    capped = []
    for unit in reversed(share):
        off = min(max(over, 0), len(unit.cpus) - 1)
        over -= off
        capped.append(unit._replace(cpus=unit.cpus[: len(unit.cpus) - off]))
    return capped[::-1]


def hardware_threads(
    cores: Sequence[Unit],
    ranks: int,
    cpus_per_rank: Optional[int],  # noqa: UP045
    *,
    tidy: bool,
) -> list[list[Unit]]:
    """Equal shares of hardware threads, where there are fewer cores than ranks; of as few cores each as possible."""
    line = [(core, cpu) for core in cores for cpu in core.cpus]
    units = [Unit(at, core.core, (cpu,), core.socket, core.numa, core.core) for at, (core, cpu) in enumerate(line)]
    shares = []
    for share in distribute(units, ranks, cpus_per_rank, tidy=tidy):
        mine: dict[int, Unit] = {}
        for unit in share:
            had = mine.get(unit.core)
            mine[unit.core] = unit if had is None else had._replace(cpus=had.cpus + unit.cpus)
        shares.append(list(mine.values()))
    return shares


def _named(topology: Topology) -> str:
    return f" {topology.name}" if topology.name else ""


def fair_share(cores: Sequence[Unit], ranks: int, cpus_per_rank: Optional[int]) -> int:  # noqa: UP045
    """Cores per rank where no border matters: with ``cpus_per_rank`` no more than surely have so many CPUs.

    Of unlike cores any rank may have those with the fewest CPUs. Without the last of them these would be too few, and a
    core has one at least, so there are never more cores than ``cpus_per_rank``, and ``_capped`` suffices.
    """
    fair = len(cores) // ranks
    if cpus_per_rank is None:
        return fair
    together = accumulate(sorted(len(core.cpus) for core in cores))
    return min(fair, next((number for number, cpus in enumerate(together, 1) if cpus >= cpus_per_rank), fair))


def check(request: Request) -> None:
    """Raises ``PlacementError`` for a request that makes no sense on any machine."""
    if request.ranks < 1:
        raise PlacementError(f"{request.ranks} ranks were asked for; a node needs at least 1")
    for name, value, choices in (("policy", request.policy, POLICIES), ("memory", request.memory, MEMORY)):
        if value not in choices:
            raise PlacementError(f"{name} is {value!r}, which is none of {', '.join(choices)}")
    numbers = {f"threads.{role}": getattr(request.threads, role) for role in ROLES}
    numbers.update(loader_cpus=request.loader_cpus, communication_cpus=request.communication_cpus or 0)
    for name, number in numbers.items():
        if number < 0:
            raise PlacementError(f"{name} is {number}; it must be 0 or more")
    if request.cpus_per_rank is not None and request.cpus_per_rank < 1:
        raise PlacementError(f"cpus_per_rank is {request.cpus_per_rank}; a rank needs at least 1")
