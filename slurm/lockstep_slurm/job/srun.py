"""``srun_arguments``: how ``srun`` starts the ranks; what the script's line has and ``lockstep plan`` shows.

Read ``man srun`` (22.05, 24.11; the same in both unless a comment says otherwise) beside it.
"""

from __future__ import annotations

from lockstep_slurm.job.spec import JobSpec

CPUS = "lockstep_cpus"
"""The script's variable for the CPUs of a rank where only the job's nodes tell them."""
SIBLINGS = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"
"""Where the node says how many hardware threads a core has."""
ONLINE = "/sys/devices/system/cpu/online"
"""Where it says which hardware threads it has; those that are switched off are no siblings either."""

LEFTOVERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        # An interactive step exports these to its shell. A whole fleet ran three times slower for one that leaked.
        "how another step's tasks were bound",
        (
            "SLURM_CPU_BIND",
            "SLURM_CPU_BIND_LIST",
            "SLURM_CPU_BIND_TYPE",
            "SLURM_CPU_BIND_VERBOSE",
            "SLURM_MEM_BIND",
            "SLURM_MEM_BIND_LIST",
            "SLURM_MEM_BIND_PREFER",
            "SLURM_MEM_BIND_SORT",
            "SLURM_MEM_BIND_TYPE",
            "SLURM_MEM_BIND_VERBOSE",
            "SLURM_TRES_BIND",
        ),
    ),
    (
        # The line's own --cpus-per-task counts. 23.11 and newer end where two of these differ; a hint excludes
        # --cpu-bind, and "nomultithread" halves what a step has. SLURM_OVERLAP may stay: it is about this job's CPUs.
        "how many CPUs a task gets, and of which cores",
        (
            "SLURM_CPUS_PER_TASK",
            "SRUN_CPUS_PER_TASK",
            "SLURM_TRES_PER_TASK",
            "SLURM_CPUS_PER_GPU",
            "SLURM_HINT",
            "SLURM_THREADS_PER_CORE",
            "SLURM_NCORES_PER_SOCKET",
            "SLURM_NSOCKETS_PER_NODE",
            "SLURM_CORE_SPEC",
            "SLURM_THREAD_SPEC",
            "SLURM_OVERCOMMIT",
        ),
    ),
    (
        # --ntasks-per-core rounds --cpus-per-task up to whole cores, and then a whole node does not suffice.
        "where tasks go",
        (
            "SLURM_DISTRIBUTION",
            "SLURM_DIST_PLANESIZE",
            "SLURM_HOSTFILE",
            "SLURM_NTASKS_PER_CORE",
            "SLURM_NTASKS_PER_SOCKET",
            "SLURM_NTASKS_PER_GPU",
            "SLURM_NTASKS_PER_TRES",
            "SLURM_SPREAD_JOB",
            "SLURM_USE_MIN_NODES",
        ),
    ),
    (
        # --export on the line would do, but an environment that is not exported has cost srun its PATH (22.05).
        "what is exported",
        ("SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV"),
    ),
)
"""Variables that change what ``srun`` does with the ranks, by what they say. They reach a script from the shell that
submits (``sbatch --export=ALL``), from one that runs it inside an allocation (``bash FILE``), and from a set-up; the
batch job's own are of the header, and the line says all of that again."""


def srun_arguments(
    spec: JobSpec,
    *,
    mpi: str | None = None,
    cpus_per_node: int | None = None,
    threads_per_core: int = 1,
    threads_per_node: int | None = None,
) -> list[str]:
    """The options of the ``srun`` that starts the ranks of ``spec``; of Open MPI's own where ``mpirun`` starts them.

    ``mpi`` is the site's way to start MPI's processes, for a spec that does not say. ``cpus_per_node`` are the CPUs of
    the smallest node, which count where a job has whole nodes; None: the shell variable ``CPUS`` stands for a rank's.
    ``threads_per_core``: hardware threads of a core there; ``threads_per_node``: all that the node has (None: that is
    not known), by which it is seen where Slurm counts cores as CPUs.

    A rank's wrapper plans inside all CPUs that the ranks of its node were given, together. So the line has to see to
    it that these are the job's, and no one else's:

    - ``--cpus-per-task`` on this line: 22.05 to 23.02 do not hand on the header's. It makes the step ``--exact``.
    - ``--cpu-bind=cores``: a rank gets whole cores of the job's. ``none`` would leave it, where no cgroup confines the
      job, every CPU of the machine, and slurmd's reserved ones; explicit masks are for whole nodes alone.
    - On whole nodes equal parts of all CPUs are asked for, of whole cores, also where the spec wants fewer for a rank:
      which ones is for the plan.
    - ``--distribution=block``: rank 0 to R-1 on the first node, and so on.
    - ``--kill-on-bad-exit=1``: the others would wait for a rank that has failed.
    """
    ranks = spec.placement.ranks_per_node
    each = cpus_per_rank(spec, cpus_per_node, threads_per_core, threads_per_node)
    if started_by_mpirun(spec, mpi):
        together = f"$(({CPUS} * {ranks}))" if each is None else str(each * ranks)
        return [f"--cpus-per-task={together}", "--cpu-bind=cores"]
    arguments = [
        "--export=ALL",
        "--kill-on-bad-exit=1",
        "--label",
        f"--nodes={spec.resources.nodes}",
        f"--ntasks={spec.ranks}",
        f"--ntasks-per-node={ranks}",
        f"--cpus-per-task={f'${CPUS}' if each is None else each}",
        "--cpu-bind=cores",
        "--distribution=block",
    ]
    if spec.communication.backend == "mpi" and (kind := spec.communication.mpi or mpi) is not None:
        arguments.append(f"--mpi={kind}")
    return arguments


def started_by_mpirun(spec: JobSpec, mpi: str | None) -> bool:
    """Whether Open MPI's own launcher starts the ranks; ``mpi`` is the site's way, for a spec that does not say."""
    return spec.communication.backend == "mpi" and (spec.communication.mpi or mpi) == "mpirun"


def cpus_per_rank(
    spec: JobSpec,
    cpus_per_node: int | None = None,
    threads_per_core: int = 1,
    threads_per_node: int | None = None,
) -> int | None:
    """The CPUs that ``srun`` is to give each rank; None: an equal part of whole nodes that are not known yet.

    A part of more than one core is of whole cores: with a part of one, Slurm would give that core to two ranks. Where
    a core is one CPU to Slurm (man slurm.conf, CPUs: "either the number of sockets times cores or times threads"), any
    part is.
    """
    if not spec.resources.exclusive:
        return spec.placement.cpus_per_rank or 1
    if cpus_per_node is None:
        return None
    if threads_per_node is not None and cpus_per_node * threads_per_core <= threads_per_node:
        threads_per_core = 1
    each = max(1, cpus_per_node // spec.placement.ranks_per_node)
    return each - each % threads_per_core if each > threads_per_core else each
