"""``lockstep script``: the batch script of a spec on standard output; no service needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.jobs import SetOption, SpecArgument


def script(
    file: SpecArgument,
    settings: SetOption = None,
    *,
    runs: Annotated[
        Path | None,
        typer.Option(help="Where run directories go; the compute nodes must see it.", show_default="<home>/runs"),
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="The ranks' interpreter where the spec names no venv.", show_default="this one")
    ] = None,
) -> None:
    """Print the sbatch script of a spec: `lockstep script FILE > j.sbatch && sbatch j.sbatch`, or `bash j.sbatch`."""
    from lockstep_slurm.job import file as spec_file
    from lockstep_slurm.job.script import ScriptSite, render

    spec = spec_file.read(file, settings or ())
    site = ScriptSite(
        # Not resolved: a virtual environment's python is a link, and what it points to has no packages.
        python=str(python.expanduser().absolute() if python else sys.executable),
        runs=str((runs or home() / "runs").expanduser().absolute()),
    )
    sys.stdout.write(render(spec, site))
