"""What a person should know of a node's plan as a whole: plain sentences about borders, idle cores and CPUs shared."""

from __future__ import annotations

from collections.abc import Sequence

from lockstep_slurm.placement.cpulist import compress
from lockstep_slurm.placement.distribute import Unit
from lockstep_slurm.placement.granted import fair_share
from lockstep_slurm.placement.request import ROLES, Request


def spanning(cores: Sequence[Unit], shares: Sequence[Sequence[Unit]], request: Request) -> list[str]:
    """Which ranks span domains or sockets, and what it cost where none had to."""
    said = []
    for rank, share in enumerate(shares):
        domains = list(dict.fromkeys(unit.numa for unit in share))
        sockets = list(dict.fromkeys(unit.socket for unit in share))
        if len(domains) > 1:
            crossing = f" of sockets {_and(sockets)}" if len(sockets) > 1 else ""
            said.append(
                f"local rank {rank} spans NUMA domains {_and(domains)}{crossing}: "
                f"its {len(share)} cores do not fit into one beside the other ranks'"
            )
        elif len(sockets) > 1:
            said.append(f"local rank {rank} crosses sockets {_and(sockets)}")
    each = len(shares[0])
    fair = fair_share(cores, request.ranks, request.cpus_per_rank)
    if len(cores) >= request.ranks and each < fair:
        said.append(
            f"{(fair - each) * request.ranks} cores stay idle so that ranks keep to NUMA domains and sockets: "
            f"{each} cores per rank, where {fair} would make ranks cross their borders"
        )
    return said


def communication(shares: Sequence[Sequence[Unit]], request: Request) -> list[str]:
    """What became of the communication CPUs that were asked for, where that is not plain from the request."""
    wanted, total = request.communication_cpus, sum(getattr(request.threads, role) for role in ROLES)
    if request.policy == "none" and wanted:
        return [f'policy "none" keeps no CPU for communication: communication_cpus = {wanted} has no effect']
    if wanted is not None and wanted > total:
        idle = f"{wanted - total} of these CPUs stay idle"
        return [f"communication_cpus = {wanted}, and each rank has {total} communication threads: {idle}"]
    single = [rank for rank, share in enumerate(shares) if sum(len(unit.cpus) for unit in share) == 1]
    if single and total and wanted is None and request.policy != "none":
        named = f"local rank {compress(single)}" if len(single) == 1 else f"each of the local ranks {compress(single)}"
        return [f"{named} has one CPU for everything: computing and communication take turns on it"]
    return []


def _and(numbers: Sequence[int]) -> str:
    return " and ".join((", ".join(map(str, numbers[:-1])), str(numbers[-1])))
