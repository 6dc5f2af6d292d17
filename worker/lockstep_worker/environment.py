"""The environment of a rank's training: what leaks in is taken out, what it needs is put in (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim
from lockstep_slurm.placement import RankPlacement, environment
from lockstep_worker.world import World

# Slurm's and PMI's variables make an MPI library or a nested srun think that it was started by them; a leaked OMP_* or
# HOROVOD_* of the submitting shell would undo the placement; LOCKSTEP_* may hold the service's own settings and token.
LEAKING = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "PMI", "HOROVOD_", "LOCKSTEP_", "OMP_", "GOMP_", "KMP_")
GLOO_TIMEOUT = 300
"""Seconds that a collective waits for a rank that is slow (evaluating, saving); a dead rank is seen at once."""


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet, as rank 0 published it, and the interface by which this node reaches it."""

    address: str
    port: int
    nonce: str
    interface: str


def clean(inherited: Mapping[str, str]) -> dict[str, str]:
    """``inherited`` without what must not reach a job (design, rule 6)."""
    return {name: value for name, value in inherited.items() if not name.startswith(LEAKING)}


def training_environment(
    inherited: Mapping[str, str],
    *,
    spec: Mapping[str, Any],
    run: Path,
    claim: Claim,
    world: World,
    placement: RankPlacement,
    socket: Path | None,
    meeting: Meeting | None,
) -> dict[str, str]:
    """Everything that the training process finds around it; the spec's ``environment.variables`` have the last word.

    ``meeting`` is None for a single rank, which Horovod then runs without a rendezvous.
    """
    communication = spec.get("communication", {})
    variables = clean(inherited)
    variables.update(
        RANK=str(world.rank),
        WORLD_SIZE=str(world.size),
        LOCAL_RANK=str(world.local_rank),
        LOCAL_WORLD_SIZE=str(world.local_size),
        HOROVOD_RANK=str(world.rank),
        HOROVOD_SIZE=str(world.size),
        HOROVOD_LOCAL_RANK=str(world.local_rank),
        HOROVOD_LOCAL_SIZE=str(world.local_size),
        HOROVOD_CROSS_RANK=str(world.cross_rank),
        HOROVOD_CROSS_SIZE=str(world.cross_size),
        HOROVOD_HOSTNAME=world.node,
        HOROVOD_CONTROLLER="gloo",
        HOROVOD_CPU_OPERATIONS="gloo",
        HOROVOD_GLOO_TIMEOUT_SECONDS=str(GLOO_TIMEOUT),
        HOROVOD_CYCLE_TIME=str(communication.get("cycle_time_ms", 1.0)),
        HOROVOD_FUSION_THRESHOLD=str(int(communication.get("fusion_threshold_mib", 64)) << 20),
        LOCKSTEP_RUN=str(run),
        LOCKSTEP_ATTEMPT=str(claim.attempt),
        LOCKSTEP_FENCE=str(claim.fence),
        LOCKSTEP_COMPUTE_CPUS=",".join(map(str, placement.compute)),
        LOCKSTEP_COMMUNICATION_CPUS=",".join(map(str, placement.communication)),
        PYTHONUNBUFFERED="1",
    )
    if socket is not None:
        variables["LOCKSTEP_SOCKET"] = str(socket)
    if meeting is not None:
        # See rendezvous.Server: the nonce travels in the address, since Horovod has no other place for it.
        variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] = f"{meeting.address}:{meeting.port}/{meeting.nonce}"
        variables["HOROVOD_GLOO_RENDEZVOUS_PORT"] = str(meeting.port)
        variables["HOROVOD_GLOO_IFACE"] = meeting.interface
    variables.update(environment(placement, local_rank=world.local_rank, local_size=world.local_size))
    variables.update(spec.get("environment", {}).get("variables", {}))
    return variables
