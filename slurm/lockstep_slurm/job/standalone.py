"""``render_standalone``: a batch script that needs nothing of Lockstep, with explicit masks for whole nodes."""

from __future__ import annotations

import importlib.metadata
import shlex
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.bootstrap import SAFE
from lockstep_slurm.job.cycle import cycle_time_ms
from lockstep_slurm.job.malloc import malloc_variables
from lockstep_slurm.job.script import ScriptSite, directives, templates
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.srun import LEFTOVERS, started_by_mpirun
from lockstep_slurm.placement import Placement, RankPlacement, Topology, common_environment, environment
from lockstep_slurm.placement.cpulist import compress

OURS = "LOCKSTEP_"
"""Variables that only Lockstep's own hook reads."""


class StandaloneError(LockstepError):
    """The spec asks for what such a script cannot do; ``place`` is its dotted key."""

    def __init__(self, place: str, message: str) -> None:
        self.place, self.message = place, message
        super().__init__(f"{place}: {message}")


@dataclass(frozen=True)
class _Rank:
    """What the script's table says of one local rank."""

    number: int
    given: str
    """All its CPUs, as the kernel lists a mask."""
    compute: str
    variables: list[tuple[str, str]]
    words: str
    """The same for people."""


def render_standalone(spec: JobSpec, site: ScriptSite, topology: Topology, placement: Placement) -> str:
    """The batch script of ``spec`` for nodes like ``topology``, whose CPUs ``placement`` divides.

    Explicit masks are honoured by ``srun`` only where the step has every CPU of the node (man srun, ``--cpu-bind``), so
    the job has to have whole nodes, of this one kind; on any other the script ends before a rank trains. Raises
    ``StandaloneError`` for a job without whole nodes, and for what is Lockstep's own: its recipes, containers, mpirun.
    """
    _check(spec, site)
    communication, wanted = spec.communication, spec.environment
    options = {"backend": communication.backend, "threads": spec.placement.threads}
    common = common_environment(placement, **options, ccl_workers=communication.ccl_workers)
    every = [
        environment(placement, rank.local_rank, **options, ccl_workers=communication.ccl_workers)
        for rank in placement.ranks
    ]
    venv, conda = (prefix.rstrip("/") if prefix else None for prefix in (wanted.venv, wanted.conda))
    return (
        templates()
        .get_template("standalone.sbatch.j2")
        .render(
            directives=directives(spec),
            version=importlib.metadata.version("lockstep"),
            machine=describe(topology),
            notes=_notes(placement),
            cpus=len(topology.cpus),
            ranks_per_node=len(placement.ranks),
            size=spec.ranks,
            nodes=spec.resources.nodes,
            # The spec's own variables have the last word.
            table=[
                _row(rank, {name: value for name, value in its.items() if name not in wanted.variables}, common)
                for rank, its in zip(placement.ranks, every, strict=True)
            ],
            common=_theirs(common.items()),
            srun=textwrap.wrap(
                " ".join(_srun(spec, site, topology, placement)), 108, break_on_hyphens=False, break_long_words=False
            ),
            leftovers=[textwrap.wrap(" ".join(names), 110) for _, names in LEFTOVERS],
            backend=communication.backend,
            cycle_time=cycle_time_ms(spec.model_dump(), spec.ranks),
            fusion_threshold=communication.fusion_threshold_mib << 20,
            interface=communication.interface,
            subnet=communication.subnet or (site.subnets[0] if site.subnets else None),
            safe=SAFE,
            python=f"{venv or conda}/bin/python" if venv or conda else site.python,
            venv=venv,
            conda=conda,
            module_init=site.module_init,
            modules=wanted.modules,
            module_use=wanted.module_use,
            setup_file=wanted.setup_file,
            malloc=malloc_variables(spec.model_dump()),
            variables=sorted(wanted.variables.items()),
            command=shlex.join([spec.training.script or "", *spec.training.arguments]),
        )
    )


def _check(spec: JobSpec, site: ScriptSite) -> None:
    if not spec.resources.exclusive:
        raise StandaloneError(
            "resources.exclusive",
            "is false, but a script without Lockstep sets each rank's CPUs by explicit masks, which Slurm honours on "
            "whole nodes alone; set it to true, or leave --standalone out: ranks then plan inside what they are given",
        )
    if spec.training.script is None:
        raise StandaloneError(
            "training.model",
            f"is {spec.training.model!r}, a recipe of Lockstep's own; without Lockstep, name a training.script",
        )
    if spec.environment.container is not None:
        raise StandaloneError(
            "environment.container", "is opened by Lockstep's script alone; name a venv or conda, or print that one"
        )
    if spec.checkpoint is not None:
        raise StandaloneError(
            "checkpoint",
            "makes Slurm send SIGUSR1 before the time limit, which ends a rank where nothing of ours listens; and "
            "only Lockstep's script puts a job back into the queue: leave the section out, or print that one",
        )
    if started_by_mpirun(spec, site.mpi):
        raise StandaloneError(
            "communication.mpi",
            "is mpirun, but explicit masks are srun's; name a type of `srun --mpi=list`, such as pmix",
        )


def _srun(spec: JobSpec, site: ScriptSite, topology: Topology, placement: Placement) -> list[str]:
    """The options of ``srun``; each word without a blank or anything that a shell would act on."""
    ranks, cpus = len(placement.ranks), len(topology.cpus)
    masks = ",".join(f"{sum(1 << cpu for cpu in rank.cpus):#x}" for rank in placement.ranks)
    # Equal parts make up the whole node. Where there are none, only a step without -c has all of it (srun, --exact).
    share = f"--cpus-per-task={cpus // ranks}" if cpus % ranks == 0 else "--whole"
    arguments = [
        "--export=ALL",
        "--kill-on-bad-exit=1",
        "--label",
        f"--nodes={spec.resources.nodes}",
        f"--ntasks={spec.ranks}",
        f"--ntasks-per-node={ranks}",
        share,
        "--distribution=block",
        f"--cpu-bind=mask_cpu:{masks}",
    ]
    if memory := _memory(placement, topology):
        arguments.append(memory)
    mpi = spec.communication.mpi or site.mpi
    if spec.communication.backend == "mpi" and mpi is not None:
        arguments.append(f"--mpi={mpi}")
    return arguments


def _memory(placement: Placement, topology: Topology) -> str | None:
    """The option ``--mem-bind``; None where the kernel's own way is meant, or there is nothing to choose.

    It has one policy for all ranks: where a rank spans domains and has the kernel's own, all have.
    """
    policies = {rank.memory.policy for rank in placement.ranks}
    if len(policies) > 1 or policies == {"local"} or len(topology.numa) < 2:
        return None
    (policy,) = policies
    masks = ",".join(f"{sum(1 << domain for domain in rank.memory.domains):#x}" for rank in placement.ranks)
    return f"--mem-bind={'prefer,' if policy == 'preferred' else ''}mask_mem:{masks}"


def _row(rank: RankPlacement, variables: dict[str, str], common: dict[str, str]) -> _Rank:
    own = [(name, value) for name, value in variables.items() if common.get(name) != value]
    communication = compress(rank.communication.cpus) if rank.communication.cpus else "the same"
    loader = f", loading {compress(rank.loader)}" if rank.loader else ""
    domains = f"NUMA {compress(rank.numa)}" if rank.numa else "no NUMA"
    words = f"computing {compress(rank.compute)}, communicating {communication}{loader}; {domains}"
    return _Rank(rank.local_rank, compress(rank.cpus), compress(rank.compute), _theirs(own), words)


def _theirs(variables: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in variables if not name.startswith(OURS)]


def _notes(placement: Placement) -> list[str]:
    """What the plan says of itself, as lines of comments: plain text, so no line of it can be a command."""
    said = [*placement.warnings, *placement.degraded]
    if placement.spare:
        said.append(f"CPUs that no rank uses: {compress(placement.spare)}")
    return [line for sentence in said for line in textwrap.wrap(" ".join(sentence.split()), 114)]


def describe(topology: Topology) -> str:
    """A machine in a few words: ``2 sockets x 28 cores x 2 hardware threads, 2 NUMA domains``."""
    sockets = len({core.socket for core in topology.cores})
    cores, threads = len(topology.cores), topology.threads_per_core
    each = f"{cores // sockets} cores" if cores % sockets == 0 else f"{cores} cores in all"
    domains = len({core.numa for core in topology.cores})
    return (
        f"{sockets} socket{'s' * (sockets != 1)} x {each} x {threads} hardware thread{'s' * (threads != 1)}, "
        f"{domains} NUMA domain{'s' * (domains != 1)}"
    )
