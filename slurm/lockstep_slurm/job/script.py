"""``render``: the batch script of a spec, which runs under Slurm, by hand, and with plain bash."""

from __future__ import annotations

import importlib.metadata
import posixpath
import re
import shlex
import textwrap
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from lockstep_slurm.job.bootstrap import BOOT, SAFE
from lockstep_slurm.job.rundir import STOPPED
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.srun import CPUS, LEFTOVERS, ONLINE, SIBLINGS, srun_arguments


@dataclass(frozen=True)
class ScriptSite:
    """What a script has to know about the place where it runs; absolute paths as the compute nodes see them."""

    python: str
    """The interpreter of the ranks where the spec's ``environment`` brings none."""
    runs: str
    """The folder of run directories."""
    library: str | None = None
    """What ``PYTHONPATH`` gets (``library.provide``); None where every interpreter has Lockstep installed."""
    module_init: str | None = None
    """The administrator's shell lines after which a batch shell has ``module``; None: the usual places are tried."""
    container_init: str | None = None
    """The administrator's shell lines after which ``apptainer`` is on PATH."""
    apptainer: str = "apptainer"
    """The program that opens an image: a name on PATH, or a path."""
    subnets: tuple[str, ...] = ()
    """The networks to use, best first, where the spec names none."""
    ports: str | None = None
    """The ports that ranks may listen on, ``first-last``; None: any."""
    mpi: str | None = None
    """How MPI's processes are started where the spec does not say: a type of ``srun --mpi=list``, or ``mpirun``."""
    mpirun: str = "mpirun"
    """The program of that name."""


_LEFTOVERS = [textwrap.wrap(" ".join(names), 110) for _, names in LEFTOVERS]
"""The lines of each kind, put together once: that takes longer than all the rest of a script."""


def directives(spec: JobSpec) -> list[tuple[str, str | None]]:
    """The ``#SBATCH`` header as (option, value) pairs, in the order of ``man sbatch`` (22.05); a flag has no value."""
    resources, placement = spec.resources, spec.placement
    pairs: list[tuple[str, str | None]] = [
        ("job-name", spec.name),
        ("nodes", str(resources.nodes)),
        ("ntasks-per-node", str(placement.ranks_per_node)),
    ]
    if placement.cpus_per_rank is not None:
        pairs.append(("cpus-per-task", str(placement.cpus_per_rank)))
    pairs += [
        (option, value)
        for option, value in (
            ("partition", resources.partition),
            ("account", resources.account),
            ("qos", resources.qos),
            ("reservation", resources.reservation),
            ("constraint", resources.constraint),
            ("time", resources.time),
            ("begin", resources.begin),
            ("mail-user", resources.mail_user),
            ("mail-type", ",".join(resources.mail_type) or None),
        )
        if value is not None
    ]
    if resources.exclusive:
        pairs.append(("exclusive", None))
    if resources.mem is not None or resources.exclusive:
        # Whole nodes come with all CPUs but only the default memory, unless 0 asks for all of it.
        pairs.append(("mem", resources.mem or "0"))
    pairs.append(("requeue" if resources.requeue else "no-requeue", None))
    if spec.checkpoint is not None:
        # To the steps, not to this script: Slurm signals each rank's wrapper (some set-ups: every process of the step).
        pairs.append(("signal", f"USR1@{spec.checkpoint.signal_seconds}"))
    pairs += [("open-mode", "append"), ("export", "NONE")]
    return pairs


@cache
def lockstep_version() -> str:
    """Of this installation: to look it up reads files."""
    return importlib.metadata.version("lockstep")


def render(spec: JobSpec, site: ScriptSite) -> str:
    """The batch script of ``spec``. It carries the spec but no job id: that reaches it as the run directory.

    Every value is data: paths, names and variables are quoted for the shell, the spec travels in a quoted
    here-document as JSON, and the spec's own model refuses control characters.
    """
    placement = spec.placement
    wanted = spec.environment
    venv = wanted.venv.rstrip("/") if wanted.venv else None
    conda = wanted.conda.rstrip("/") if wanted.conda else None
    has_modules = bool(wanted.modules or wanted.module_use)
    return (
        templates()
        .get_template("job.sbatch.j2")
        .render(
            directives=directives(spec),
            version=lockstep_version(),
            python=f"{venv or conda}/bin/python" if venv or conda else site.python,
            runs=site.runs,
            library=site.library,
            # The site's lines for containers may well load a module.
            site_modules=has_modules or bool(wanted.container and site.container_init),
            module_init=site.module_init,
            module_use=wanted.module_use,
            modules=wanted.modules,
            venv=venv,
            conda=conda,
            container=wanted.container,
            container_init=site.container_init,
            apptainer=site.apptainer,
            binds=_binds(spec),
            setup_file=wanted.setup_file,
            lenient=bool(has_modules or conda or wanted.setup_file or (wanted.container and site.container_init)),
            variables=sorted(spec.environment.variables.items()),
            spec_json=spec.model_dump_json(indent=2, exclude_none=True),
            ranks=spec.ranks,
            ranks_per_node=placement.ranks_per_node,
            boot=BOOT,
            safe=SAFE,
            srun=textwrap.wrap(" ".join(srun_arguments(spec, mpi=site.mpi)), 108, break_on_hyphens=False),
            whole_nodes=spec.resources.exclusive,
            cpus=CPUS,
            siblings=SIBLINGS,
            online=ONLINE,
            leftovers=_LEFTOVERS,
            network=_network(spec, site),
            mpi=(spec.communication.mpi or site.mpi) if spec.communication.backend == "mpi" else None,
            mpirun=site.mpirun,
            stopped=STOPPED,
            goes_on=spec.checkpoint is not None,
            requeue=spec.resources.requeue,
        )
    )


@cache
def templates() -> Environment:
    """The scripts' templates; every value in them passes a filter: ``sh`` quotes for the shell, ``inert`` replaces.

    One for the process: to compile them takes ten times as long as all else that a submission needs.
    """
    environment = Environment(
        loader=PackageLoader("lockstep_slurm.job"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        autoescape=False,  # noqa: S701 - the output is a shell script
    )
    environment.filters["sh"] = shlex.quote
    environment.filters["inert"] = _inert
    return environment


def _network(spec: JobSpec, site: ScriptSite) -> str:
    """The launcher's options for the network, each with a blank before it: what the spec says beats the site."""
    subnets = site.subnets if spec.communication.subnet is None else (spec.communication.subnet,)
    words = [word for subnet in subnets for word in ("--subnet", subnet)]
    words += ["--ports", site.ports] if site.ports is not None else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def spec_of(script: str) -> str | None:
    """The spec as JSON that a script carries, and its ranks follow; None where it is not one of ours."""
    _, begun, rest = script.partition("<<'LOCKSTEP_SPEC'\n")
    text, ended, _ = rest.partition("\nLOCKSTEP_SPEC\n")
    return text if begun and ended else None


def _binds(spec: JobSpec) -> list[str]:
    """What a container sees of the host beyond Lockstep's own: the folders of the training, and what the spec names."""
    container, training = spec.environment.container, spec.training
    if container is None:
        return []
    script = posixpath.dirname(training.script) if training.script else None
    stage = training.stage if isinstance(training.stage, str) else None
    own = [folder for folder in (script, training.model_path, training.data_path, stage) if folder]
    return [*own, *container.binds]


def _inert(text: str) -> str:
    """Text for a message within double quotes: what the shell could act on is replaced."""
    return re.sub(r"[^A-Za-z0-9_./ @:+-]", "?", text)
