"""The variables that make OpenMP, MKL, torch, Horovod, oneCCL and MPI follow a placement.

Most are read when a library is loaded, so they are set before anything imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from lockstep_slurm.placement.placement import Placement, RankPlacement

BACKENDS = ("gloo", "mpi", "ccl")
THREADS = ("rank", "cpu")


def environment(
    placement: Placement,
    local_rank: int,
    *,
    backend: str = "gloo",
    threads: str = "rank",
    ccl_workers: Optional[int] = None,  # noqa: UP045 - read by Python 3.9 on compute nodes
) -> dict[str, str]:
    """The variables of one rank, whose process is bound to its compute CPUs by whoever starts it.

    ``threads``: ``rank`` leaves each OpenMP thread all compute CPUs of its rank, ``cpu`` gives each one CPU, in the
    placement's order. ``ccl_workers`` is oneCCL's worker threads per rank; None: as many as the placement has CPUs for.

    ``LOCKSTEP_INTEROP_THREADS`` is Lockstep's own: torch has no variable for its pool of inter-op threads, so the hook
    in the training applies it. torch takes that number once and raises the second time (2.13): a script that sets it
    itself must be let have its way.

    Sources: libgomp's manual, "Environment Variables" (gcc 12); Intel's OpenMP guide, "Thread Affinity Interface"
    (2021); Horovod 0.28.1, ``common/common.cc`` (``parse_and_set_affinity``); oneCCL 2021.10, "Environment variables".
    Raises ``ValueError`` for a rank, a backend, a way to bind threads or a number of workers that there is not.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
    if threads not in THREADS:
        raise ValueError(f"threads {threads!r} is none of {', '.join(THREADS)}")
    if not 0 <= local_rank < len(placement.ranks):
        raise ValueError(f"local rank {local_rank} is not within the {len(placement.ranks)} ranks of its node")
    variables = _compute(placement.ranks[local_rank].compute, threads)
    if any(rank.communication.horovod for rank in placement.ranks):
        # Linux's numbers; each rank reads its own entry. A rank without a CPU for it shares one that it computes on.
        variables["HOROVOD_THREAD_AFFINITY"] = _list(
            [(rank.communication.horovod or rank.compute[-1:])[0] for rank in placement.ranks]
        )
    if backend == "ccl":
        workers = _workers(placement, ccl_workers)
        variables["CCL_WORKER_COUNT"] = str(workers)
        # Each rank reads its own stretch of this list, whose length must be workers x ranks of the node. Never auto:
        # under srun that is the last CPUs of the whole machine, whatever the job was given (oneCCL 2021.10).
        variables["CCL_WORKER_AFFINITY"] = _list(
            [cpu for rank in placement.ranks for cpu in _worker_cpus(rank, workers)]
        )
    if backend != "gloo":
        # Intel MPI would bind the process anew, by its own idea of the machine; oneCCL may bring it in as well.
        variables["I_MPI_PIN"] = "0"
    return variables


def common_environment(
    placement: Placement,
    *,
    backend: str = "gloo",
    threads: str = "rank",
    ccl_workers: Optional[int] = None,  # noqa: UP045
) -> dict[str, str]:
    """Those of ``environment``'s variables that are the same for all ranks of the node."""
    every = [
        environment(placement, rank.local_rank, backend=backend, threads=threads, ccl_workers=ccl_workers)
        for rank in placement.ranks
    ]
    return {
        name: value
        for name, value in (every[0].items() if every else ())
        if all(other.get(name) == value for other in every)
    }


def _compute(cpus: Sequence[int], threads: str) -> dict[str, str]:
    count = str(len(cpus))
    variables = {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        # NumPy's OpenBLAS keeps a pool of its own beside OpenMP's, made at its import and idle while OpenMP works.
        "OPENBLAS_NUM_THREADS": count,
        # Intel's runtime, where it is preloaded: its threads wait 1 ms for more work, not 200, and so leave a CPU that
        # something else could use. GNU's threads do so by themselves.
        "KMP_BLOCKTIME": "1",
        # Nothing that trains step by step has use for a pool that is as large as the machine, in each rank.
        "LOCKSTEP_INTEROP_THREADS": "1",
    }
    if threads == "rank":
        # The process's mask binds them all, for GNU's and Intel's runtime alike. A bound first thread would hand its
        # single CPU to every thread made after it, Gloo's socket thread among them.
        variables["OMP_PROC_BIND"] = "false"
        return variables
    variables["OMP_PLACES"] = ",".join(f"{{{cpu}}}" for cpu in cpus)
    variables["OMP_PROC_BIND"] = "close"
    # norespect: where Intel's runtime is preloaded, torch's GNU one is loaded all the same and has bound the first
    # thread by then; to respect that mask would put every thread on one CPU (seen with intel-openmp 2026.2).
    variables["KMP_AFFINITY"] = f"granularity=fine,norespect,proclist=[{_list(cpus)}],explicit"
    # GNU's runtime binds the first thread where it is loaded, by torch's import; OpenBLAS's pool inherits that one CPU.
    variables["OPENBLAS_NUM_THREADS"] = "1"
    return variables


def _workers(placement: Placement, wanted: Optional[int]) -> int:  # noqa: UP045
    workers = max(len(rank.communication.ccl) for rank in placement.ranks) or 1 if wanted is None else wanted
    if workers < 1:
        raise ValueError(f"ccl_workers is {workers}; oneCCL has at least 1 per rank")
    return workers


def _worker_cpus(rank: RankPlacement, workers: int) -> tuple[int, ...]:
    """One CPU for each worker: those planned, else the rank's last compute CPUs; again from the first if too few."""
    cpus = rank.communication.ccl or rank.compute[-workers:]
    return tuple(cpus[number % len(cpus)] for number in range(workers))


def _list(cpus: Sequence[int]) -> str:
    return ",".join(map(str, cpus))
