"""``render``: the batch script of a spec, which runs under Slurm, by hand, and with plain bash."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from lockstep_slurm.job.spec import JobSpec


@dataclass(frozen=True)
class ScriptSite:
    """What a script has to know about the place where it runs; absolute paths as the compute nodes see them."""

    python: str
    """The interpreter of the ranks where the spec names no ``environment.venv``."""
    runs: str
    """The folder of run directories."""


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
    pairs += [("open-mode", "append"), ("export", "NONE")]
    return pairs


def render(spec: JobSpec, site: ScriptSite) -> str:
    """The batch script of ``spec``. It carries the spec but no job id: that reaches it as the run directory.

    Every value is data: paths, names and variables are quoted for the shell, the spec travels in a quoted
    here-document as JSON, and the spec's own model refuses control characters.
    """
    environment = Environment(
        loader=PackageLoader("lockstep_slurm.job"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - the output is a shell script, and everything in it passes the filters below
    )
    environment.filters["sh"] = shlex.quote
    environment.filters["inert"] = _inert
    placement = spec.placement
    if placement.cpus_per_rank is not None:
        cpus = str(placement.cpus_per_rank)
    elif spec.resources.exclusive:
        cpus = f"$((SLURM_CPUS_ON_NODE / {placement.ranks_per_node}))"
    else:
        cpus = "1"
    venv = spec.environment.venv
    return environment.get_template("job.sbatch.j2").render(
        directives=directives(spec),
        version=importlib.metadata.version("lockstep"),
        python=f"{venv.rstrip('/')}/bin/python" if venv else site.python,
        runs=site.runs,
        setup_file=spec.environment.setup_file,
        variables=sorted(spec.environment.variables.items()),
        spec_json=spec.model_dump_json(indent=2, exclude_none=True),
        ranks=spec.ranks,
        ranks_per_node=placement.ranks_per_node,
        cpus=cpus,
    )


def _inert(text: str) -> str:
    """Text for a message within double quotes: what the shell could act on is replaced."""
    return re.sub(r"[^A-Za-z0-9_./ @:+-]", "?", text)
