"""The environment of a rank's training: what leaks in is taken out, what it needs is put in (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.job.cycle import cycle_time_ms
from lockstep_slurm.job.malloc import malloc_variables
from lockstep_slurm.job.rundir import Claim
from lockstep_worker.placing import Placed
from lockstep_worker.world import World

# Slurm's and PMI's variables make an MPI library or a nested srun think that it was started by them; a leaked OMP_* or
# HOROVOD_* of the submitting shell would undo the placement, and a TORCHELASTIC_* make torch look for an agent
# that is not there; LOCKSTEP_* may hold the service's own settings and token.
LEAKING = (
    "SLURM",
    "SBATCH_",
    "SRUN_",
    "SALLOC_",
    "PMI",
    "HOROVOD_",
    "LOCKSTEP_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "TORCHELASTIC_",
)
# What starts MPI's processes speaks to them by PMI*; Open MPI (4.1.4, srun --mpi=pmix) also looks for these three, and
# without one of them takes itself for a program of a single rank, silently.
MPI_NEEDS = ("PMI",)
OPEN_MPI_NEEDS = frozenset({"SLURM_JOBID", "SLURM_NODELIST", "SLURM_STEP_ID"})
HOOK = "LOCKSTEP_HOOK"
"""Names the process that may have the hook, and what it has to know there; taken out of the environment by it."""
GLOO_TIMEOUT = 300
"""Seconds that a collective waits for a rank that is slow (evaluating, saving); a dead rank is seen at once."""


@dataclass(frozen=True)
class Meeting:
    """Where the ranks meet, as rank 0 published it, and the interface by which this node reaches it."""

    address: str
    """Rank 0's, for its rendezvous and for torch's own."""
    interface: str
    master_port: int
    """Free on rank 0's node, and kept for torch's store (``ports.kept``)."""
    port: int | None = None
    """The rendezvous's; None for a single rank, which Horovod then runs without one."""
    nonce: str | None = None


def clean(inherited: Mapping[str, str]) -> dict[str, str]:
    """``inherited`` without what must not reach a job (design, rule 6)."""
    return {name: value for name, value in inherited.items() if not name.startswith(LEAKING)}


def for_mpi(inherited: Mapping[str, str]) -> dict[str, str]:
    """What an MPI library has to find of ``inherited``, beside what is not cleaned away."""
    return {
        name: value
        for name, value in inherited.items()
        if name.startswith(MPI_NEEDS) or (name in OPEN_MPI_NEEDS and "PMIX_NAMESPACE" in inherited)
    }


def training_environment(
    inherited: Mapping[str, str],
    *,
    spec: Mapping[str, Any],
    run: Path,
    claim: Claim,
    world: World,
    placed: Placed,
    socket: Path | None,
    meeting: Meeting,
    hook: str | None = None,
) -> dict[str, str]:
    """Everything that the training process finds around it; the spec's ``environment.variables`` have the last word.

    ``hook`` is what the hook in that process has to know (``inside``); None: it has none.
    """
    communication = spec.get("communication", {})
    backend = communication.get("backend", "gloo")
    variables = clean(inherited)
    variables.update(
        RANK=str(world.rank),
        WORLD_SIZE=str(world.size),
        LOCAL_RANK=str(world.local_rank),
        LOCAL_WORLD_SIZE=str(world.local_size),
        # What torch.distributed reads for init_process_group("gloo"): its rank 0 binds the port.
        MASTER_ADDR=meeting.address,
        MASTER_PORT=str(meeting.master_port),
        GLOO_SOCKET_IFNAME=meeting.interface,
        TP_SOCKET_IFNAME=meeting.interface,
        HOROVOD_RANK=str(world.rank),
        HOROVOD_SIZE=str(world.size),
        HOROVOD_LOCAL_RANK=str(world.local_rank),
        HOROVOD_LOCAL_SIZE=str(world.local_size),
        HOROVOD_CROSS_RANK=str(world.cross_rank),
        HOROVOD_CROSS_SIZE=str(world.cross_size),
        HOROVOD_HOSTNAME=world.node,
        # oneCCL carries the collectives alone; the ranks agree on them over Gloo.
        HOROVOD_CONTROLLER="gloo" if backend == "ccl" else backend,
        HOROVOD_CPU_OPERATIONS=backend,
        HOROVOD_GLOO_TIMEOUT_SECONDS=str(GLOO_TIMEOUT),
        HOROVOD_CYCLE_TIME=str(cycle_time_ms(spec, world.size)),
        HOROVOD_FUSION_THRESHOLD=str(int(communication.get("fusion_threshold_mib", 64)) << 20),
        LOCKSTEP_RUN=str(run),
        LOCKSTEP_ATTEMPT=str(claim.attempt),
        LOCKSTEP_FENCE=str(claim.fence),
        LOCKSTEP_COMPUTE_CPUS=",".join(map(str, placed.own.compute)),
        LOCKSTEP_COMMUNICATION_CPUS=",".join(map(str, placed.own.communication.cpus)),
        LOCKSTEP_LOADER_CPUS=",".join(map(str, placed.own.loader)),
        # Slurm's own variables are taken out; where a site's prolog makes a folder for each job, it is named by one.
        LOCKSTEP_LOCAL_DISK=inherited.get("SLURM_TMPDIR") or inherited.get("TMPDIR") or "/tmp",  # noqa: S108
        # See slices.
        LOCKSTEP_SLICE_US="100" if communication.get("short_slices", True) else "0",
        LOCKSTEP_EXCHANGE_CPUS=",".join(map(str, placed.own.communication.exchange)),
        PYTHONUNBUFFERED="1",
    )
    if socket is not None:
        variables["LOCKSTEP_SOCKET"] = str(socket)
    if backend == "mpi":
        variables.update(for_mpi(inherited))
        # The wrapper has bound the rank already. What the site has set for Open MPI stays.
        variables.setdefault("OMPI_MCA_hwloc_base_binding_policy", "none")
        variables.setdefault("OMPI_MCA_btl_tcp_if_include", meeting.interface)
    elif meeting.port is not None:
        # See server.Server: the nonce travels in the address, since Horovod has no other place for it.
        variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] = f"{meeting.address}:{meeting.port}/{meeting.nonce}"
        variables["HOROVOD_GLOO_RENDEZVOUS_PORT"] = str(meeting.port)
        variables["HOROVOD_GLOO_IFACE"] = meeting.interface
    if backend == "ccl":
        # Without an MPI that starts it: its ranks meet by a store that Horovod hands round. What the site has set for
        # its fabric stays.
        variables.update(CCL_PROCESS_LAUNCHER="none", CCL_KVS_IFACE=meeting.interface)
        variables.setdefault("CCL_ATL_TRANSPORT", "ofi")
        variables.setdefault("FI_PROVIDER", "tcp")
        if variables["FI_PROVIDER"] == "tcp":
            variables.setdefault("FI_TCP_IFACE", meeting.interface)
    for name, value in malloc_variables(spec).items():
        # What the site or a set-up file has found best stays.
        variables.setdefault(name, value)
    variables.update(placed.variables)
    variables.update(spec.get("environment", {}).get("variables", {}))
    # Also before a PYTHONPATH of the spec's: the training imports Lockstep, and the very one that started it.
    ahead = [library] if (library := inherited.get("LOCKSTEP_LIBRARY")) else []
    if hook is not None:
        # Python imports the first ``sitecustomize`` that it finds there; ours goes on to the next one.
        variables[HOOK] = hook
        ahead.insert(0, str(Path(__file__).parent / "hook"))
    if ahead:
        given = variables.get("PYTHONPATH")
        behind = [part for part in given.split(":") if part not in ahead] if given else []
        variables["PYTHONPATH"] = ":".join([*ahead, *behind])
    return variables
