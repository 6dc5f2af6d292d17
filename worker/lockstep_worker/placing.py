"""Where a node's ranks sit: planned late, by each of them alike, inside the CPUs that they were really given.

Standard library only. The ranks of a node tell each other which CPUs they were given; what is given to any of them is
the node's grant, inside which each computes the same plan and takes its own part of it.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim, placement_file
from lockstep_slurm.job.writing import write_whole
from lockstep_slurm.placement import (
    Placement,
    PlacementError,
    RankPlacement,
    Topology,
    counts_cores,
    environment,
    from_sysfs,
    judge,
    plan,
    request_of,
)
from lockstep_worker.addresses import Host, this_host
from lockstep_worker.node import told, wait_for_all, wait_until_heard
from lockstep_worker.world import World

VERSION = 2


@dataclass(frozen=True)
class Placed:
    """One node's plan, with what it follows from; the same in every rank of the node, but for ``local_rank``."""

    local_rank: int
    ranks: tuple[Mapping[str, Any], ...]
    """By local rank: ``rank``, ``local_rank``, ``pid``, ``granted`` (the CPUs that it was started with)."""
    topology: Topology
    placement: Placement
    grant: tuple[str, ...]
    """What is wrong with what Slurm gave, a plain sentence each."""
    variables: Mapping[str, str]
    """Those by which the rank's libraries follow the plan."""

    @property
    def own(self) -> RankPlacement:
        """This rank's part."""
        return self.placement.ranks[self.local_rank]

    @property
    def granted(self) -> tuple[int, ...]:
        """The CPUs that any rank of the node was given, sorted."""
        return union(self.ranks)

    @property
    def helpers(self) -> tuple[int, ...]:
        """Where what runs beside the training belongs: off the cores that compute; empty: nowhere of its own.

        A spare hardware thread of a core that computes comes last: it takes from what computes there.
        """
        computing = {cpu for rank in self.placement.ranks for cpu in rank.compute}
        idle = {cpu for core in self.topology.cores if not computing & set(core.cpus) for cpu in core.cpus}
        spare = self.placement.spare
        return tuple(cpu for cpu in spare if cpu in idle) or self.own.communication.cpus or spare

    def document(self, claim: Claim, world: World) -> dict[str, Any]:
        """As ``placement/<attempt>/<node>.json`` has it, without the host."""
        return {
            "version": VERSION,
            "attempt": claim.attempt,
            "node": world.node,
            "ranks": list(self.ranks),
            "topology": self.topology.document(),
            "placement": self.placement.document(),
            "grant": list(self.grant),
        }


def union(ranks: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """All CPUs that these ranks were given, sorted."""
    return tuple(sorted({cpu for rank in ranks for cpu in rank["granted"]}))


def place(folder: Path, world: World, spec: Mapping[str, Any], variables: Mapping[str, str]) -> Placed:
    """This node's plan: waits for the other ranks of the node, whose ``folder`` this is; ``variables`` are Slurm's.

    Raises ``MeetingError`` for ranks that never start, ``PlacementError`` where the CPUs do not suffice.
    """
    told(folder, world, sorted(os.sched_getaffinity(0)))
    ranks = wait_for_all(folder, world)
    told(folder, world, None)
    if world.local_rank == 0:
        # It removes the folder when it ends, which it may do as soon as the plan fails.
        wait_until_heard(folder, world)
    return planned(ranks, world, spec, variables, from_sysfs())


def planned(
    ranks: Sequence[Mapping[str, Any]],
    world: World,
    spec: Mapping[str, Any],
    variables: Mapping[str, str],
    topology: Topology,
) -> Placed:
    """The plan that follows from what these ranks of a node, in the order of their local ranks, were given.

    Under ``srun`` every rank has CPUs of its own, and too few are an error unless the spec takes them; under ``mpirun``
    and without Slurm, ranks have theirs together, and share them where they are too few.
    """
    placement, communication = spec.get("placement", {}), spec.get("communication", {})
    request = request_of(spec, ranks=len(ranks), card=_card(communication, this_host()))
    grant: tuple[str, ...] = ()
    if world.shares_cpus:
        request = replace(request, degrade=True)
    else:
        asked = int(variables.get("SLURM_CPUS_PER_TASK") or 0) or None
        masks = {rank["local_rank"]: rank["granted"] for rank in ranks}
        grant = judge(masks, asked=asked, topology=topology, variables=variables)
        wanted = request.cpus_per_rank
        # The spec counts as Slurm's -c does, the plan in hardware threads.
        in_cores = asked is not None and not grant and counts_cores(masks, asked=asked, topology=topology)
        if wanted is not None and in_cores:
            request = replace(request, cpus_per_rank=wanted * topology.threads_per_core)
        found = len(union(ranks)) // (topology.threads_per_core if in_cores else 1)
        if wanted is not None and found < wanted * len(ranks) and not request.degrade:
            raise PlacementError(
                f"{world.node} gave its {len(ranks)} ranks {found} CPUs together, and placement.cpus_per_rank asks for "
                f"{wanted} each; see what Slurm granted, or set placement.on_shortage to degrade"
            )
    backend = communication.get("backend", "gloo")
    answer = plan(topology, union(ranks), request)
    return Placed(
        local_rank=world.local_rank,
        ranks=tuple(ranks),
        topology=topology,
        placement=answer,
        grant=grant,
        variables=environment(
            answer,
            world.local_rank,
            backend=backend,
            threads=placement.get("threads", "rank"),
            ccl_workers=communication.get("ccl_workers", 1) if backend == "ccl" else None,
        ),
    )


def _card(communication: Mapping[str, Any], host: Host) -> str | None:
    """The interface that the spec names, or by its subnet means; None: it leaves that to the site and the routes."""
    named: str | None = communication.get("interface")
    if named is None and (subnet := communication.get("subnet")) is not None:
        network = ipaddress.IPv4Network(subnet)
        found = (one.name for one in host.interfaces if ipaddress.IPv4Address(one.address) in network)
        named = next(found, None)
    return named


def bind(own: RankPlacement, node: str) -> None:
    """Moves this process to the rank's compute CPUs; ``PlacementError`` names those that the kernel refuses.

    The kernel takes a mask of which it allows a part in silence, so it is asked what it made of it.
    """
    for cpus in (own.cpus, own.compute):
        try:
            os.sched_setaffinity(0, cpus)
            allowed = os.sched_getaffinity(0)
        except OSError:
            allowed = set()
        if refused := sorted(set(cpus) - allowed):
            raise PlacementError(
                f"the kernel refuses local rank {own.local_rank} on {node} the CPUs {refused} of its plan: the cpuset "
                "of its step has become smaller than what its ranks were started with"
            )


def publish(run: Path, claim: Claim, world: World, placed: Placed) -> None:
    """Local rank 0's: writes ``placement/<attempt>/<node>.json``."""
    path = placement_file(run, claim.attempt, world.node)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, json.dumps({**placed.document(claim, world), "host": this_host().document()}))
