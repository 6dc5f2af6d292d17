"""``lockstep script``: the batch script of a spec on standard output; no service needed."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.jobs import SetOption, SpecArgument
from lockstep_slurm.cli.machine import TopologyOption, read
from lockstep_slurm.cli.output import errors

if TYPE_CHECKING:
    from lockstep_slurm.job.script import ScriptSite
    from lockstep_slurm.job.spec import JobSpec

SiteOption = Annotated[
    Path | None,
    typer.Option(
        envvar="LOCKSTEP_SITE",
        help="The site's cluster.toml.",
        show_default="/etc/lockstep's, else <home>/cluster.toml",
    ),
]


def script(
    file: SpecArgument,
    settings: SetOption = None,
    *,
    site: SiteOption = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            envvar="LOCKSTEP_RUNS",
            help="Where run directories go; the compute nodes must see it.",
            show_default="the site's, else <home>/runs",
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            envvar="LOCKSTEP_PYTHON",
            help="The ranks' interpreter where the spec brings none.",
            show_default="the site's, else this one",
        ),
    ] = None,
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone",
            help="A script that needs nothing of Lockstep: explicit masks, for whole nodes of one kind "
            "(docs/manual-scripts.md).",
        ),
    ] = False,
    topology: TopologyOption = None,
) -> None:
    """Print the sbatch script of a spec: `lockstep script FILE > j.sbatch && sbatch j.sbatch`, or `bash j.sbatch`."""
    if topology is not None and not standalone:
        raise typer.BadParameter("is for --standalone; without it, ranks plan on the node", param_hint="--topology")
    from lockstep_slurm.job import file as spec_file
    from lockstep_slurm.job.script import render
    from lockstep_slurm.site import file as site_file
    from lockstep_slurm.site import rules

    said = spec_file.read(file, settings or ())
    its = site_file.read(site_file.find(site, home()))
    spec = rules.fill(said, its)
    if refused := rules.refusals(spec, its):
        raise spec_file.SpecError(str(file), [(where, sentence) for where, sentence, _ in refused])
    folder = (runs or rules.runs_folder(its, getpass.getuser()) or home() / "runs").expanduser().absolute()
    view = rules.script_site(
        its,
        # Not resolved: a virtual environment's python is a link, and what it points to has no packages.
        python=str(python.expanduser().absolute()) if python else its.python or sys.executable,
        runs=str(folder),
        library=None if standalone else _library(folder),
    )
    sys.stdout.write(_standalone(spec, view, str(file), topology) if standalone else render(spec, view))


def _standalone(spec: JobSpec, view: ScriptSite, source: str, described: str | None) -> str:
    from lockstep_slurm.job.file import SpecError
    from lockstep_slurm.job.standalone import StandaloneError, render_standalone
    from lockstep_slurm.placement import PlacementError, plan, request_of

    machine = read(described)
    try:
        placement = plan(machine, machine.cpus, request_of(spec.model_dump(), ranks=spec.placement.ranks_per_node))
        return render_standalone(spec, view, machine, placement)
    except PlacementError as error:
        raise SpecError(source, [("placement", str(error))]) from None
    except StandaloneError as error:
        raise SpecError(source, [(error.place, error.message)]) from None


def _library(runs: Path) -> str | None:
    """The library below ``runs``; None, with a word to the person, where that folder cannot be written from here."""
    from lockstep_slurm.job import library

    try:
        return str(library.provide(runs))
    except library.LibraryError as error:
        errors.print(
            f"lockstep: {error}. This script works where the ranks' Python has lockstep[worker] installed.",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return None
