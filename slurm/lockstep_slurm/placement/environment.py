"""The variables that make OpenMP, torch and Horovod follow a placement; they are read when the libraries load."""

from __future__ import annotations

from lockstep_slurm.placement.plan import RankPlacement


def environment(placement: RankPlacement, *, local_rank: int, local_size: int) -> dict[str, str]:
    """The variables of one rank, to be set before anything imports torch.

    The process's own affinity mask is the compute CPUs (the wrapper sets it), so OpenMP needs no list of places, and
    threads that are born later inherit the compute CPUs. Horovod's background thread alone moves itself out of that
    mask, to ``HOROVOD_THREAD_AFFINITY[local_rank]`` (Horovod 0.28.1 reads only its own entry; the others are filled).
    """
    variables = {
        "OMP_NUM_THREADS": str(len(placement.compute)),
        "MKL_NUM_THREADS": str(len(placement.compute)),
        # A bound first thread would hand its single CPU to every thread made after it, Gloo's socket thread among them.
        "OMP_PROC_BIND": "false",
    }
    if placement.communication:
        if not 0 <= local_rank < local_size:
            raise ValueError(f"local rank {local_rank} is not within the {local_size} ranks of its node")
        variables["HOROVOD_THREAD_AFFINITY"] = ",".join([str(placement.communication[0])] * local_size)
    return variables
