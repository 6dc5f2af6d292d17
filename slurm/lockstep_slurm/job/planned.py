"""``Planned``: what a spec comes to on one machine: the placement, the variables, srun's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.srun import srun_arguments
from lockstep_slurm.placement import (
    Placement,
    RankPlacement,
    Topology,
    common_environment,
    environment,
    plan,
    request_of,
)
from lockstep_slurm.placement.request import ROLES


@dataclass(frozen=True)
class Planned:
    """One node of a job, planned before there is one."""

    topology: Topology
    granted: tuple[int, ...]
    """The CPUs that the plan was made for, in the topology's tree order."""
    placement: Placement
    variables: tuple[dict[str, str], ...]
    """Of each local rank."""
    environment: dict[str, str]
    """Those that all ranks of the node have alike."""
    srun: tuple[str, ...]
    """The options of the script's srun line."""
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """``lockstep plan --json``; CPU lists are arrays of Linux's numbers."""
        return {
            "ranks": [_rank(rank, own) for rank, own in zip(self.placement.ranks, self.variables, strict=True)],
            "spare": list(self.placement.spare),
            "environment": self.environment,
            "srun": list(self.srun),
            "warnings": list(self.warnings),
            "policy": self.placement.policy,
            "degraded": list(self.placement.degraded),
            "granted": list(self.granted),
            "topology": self.topology.document(),
        }


def foresee(
    spec: JobSpec,
    topology: Topology,
    granted: Sequence[int] | None = None,
    *,
    mpi: str | None = None,
    told: bool | None = None,
) -> Planned:
    """What ``spec`` comes to on a machine like ``topology``.

    ``granted`` are the CPUs that Slurm gives the job there; None: all of them. ``mpi`` is the site's way to start MPI's
    processes, ``told`` whether these are known to be the CPUs (default: where they are given). Raises
    ``PlacementError`` where they do not suffice.
    """
    cpus = topology.cpus if granted is None else tuple(cpu for cpu in topology.cpus if cpu in set(granted))
    placement = plan(topology, cpus, request_of(spec.model_dump(mode="json"), ranks=spec.placement.ranks_per_node))
    backend, threads = spec.communication.backend, spec.placement.threads
    workers = spec.communication.ccl_workers if backend == "ccl" else None
    return Planned(
        topology=topology,
        granted=cpus,
        placement=placement,
        variables=tuple(
            environment(placement, rank.local_rank, backend=backend, threads=threads, ccl_workers=workers)
            for rank in placement.ranks
        ),
        environment=common_environment(placement, backend=backend, threads=threads, ccl_workers=workers),
        srun=tuple(
            srun_arguments(
                spec,
                mpi=mpi,
                cpus_per_node=len(cpus),
                threads_per_core=topology.threads_per_core,
                threads_per_node=len(topology.cpus),
            )
        ),
        warnings=(
            *placement.warnings,
            *_of_the_grant(spec, len(cpus), told=granted is not None if told is None else told),
        ),
    )


def _of_the_grant(spec: JobSpec, cpus: int, *, told: bool) -> tuple[str, ...]:
    """What a person should know who plans for a node that Slurm has not given yet."""
    wanted, ranks = spec.placement.cpus_per_rank, spec.placement.ranks_per_node
    if spec.resources.exclusive or told:
        return ()
    if wanted is not None:
        sentence = (
            f"on a node that it shares with other jobs, this one gets {wanted * ranks} CPUs, rounded up to whole "
            "cores: Slurm chooses which, and the ranks plan anew inside those"
        )
    elif cpus > ranks:
        sentence = (
            f"this plan has all {cpus} CPUs, as a job with whole nodes would; as the spec stands, Slurm gives each "
            "rank 1 CPU: set resources.exclusive = true, or placement.cpus_per_rank"
        )
    else:
        return ()
    return (sentence,)


def _rank(rank: RankPlacement, variables: dict[str, str]) -> dict[str, Any]:
    return {
        "local_rank": rank.local_rank,
        "compute": list(rank.compute),
        "comm": {role: list(getattr(rank.communication, role)) for role in ROLES},
        "loader": list(rank.loader),
        "numa_nodes": list(rank.numa),
        "memory": {"policy": rank.memory.policy, "domains": list(rank.memory.domains)},
        "environment": variables,
    }
