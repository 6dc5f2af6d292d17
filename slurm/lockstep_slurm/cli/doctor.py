"""``lockstep doctor``: what is missing here or set dangerously on the cluster, and the cure."""

from __future__ import annotations

import getpass
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.output import Exit, console, errors, print_json
from lockstep_slurm.cli.script import SiteOption

if TYPE_CHECKING:
    from lockstep_slurm.doctor.finding import Finding

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def doctor(
    *,
    worker: Annotated[
        bool, typer.Option("--worker", help="Also load torch and Horovod, as a rank would: some seconds more.")
    ] = False,
    python: Annotated[
        Path | None, typer.Option(help="The interpreter that ranks run in.", show_default="the site's, else this one")
    ] = None,
    venv: Annotated[
        Path | None, typer.Option(help="The same, as the folder of a virtual or conda environment.", show_default=False)
    ] = None,
    site: SiteOption = None,
    slurm_conf: Annotated[Path | None, typer.Option(envvar="SLURM_CONF", help="The cluster's slurm.conf.")] = None,
    runs: Annotated[
        Path | None,
        typer.Option(envvar="LOCKSTEP_RUNS", help="Where run folders go.", show_default="the site's, else <home>/runs"),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show what is well, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for scripts, with every finding.")] = False,
) -> None:
    """Check this machine and its cluster. Exits 0 only when there is no problem; docs/doctor.md explains each check."""
    from lockstep_slurm.client.selection import configured
    from lockstep_slurm.doctor import examination
    from lockstep_slurm.doctor.finding import Level
    from lockstep_slurm.doctor.look_here import commands_there
    from lockstep_slurm.horovod.target import python_of
    from lockstep_slurm.site import file as site_file
    from lockstep_slurm.site import rules

    if python is not None and venv is not None:
        raise typer.BadParameter("give --python or --venv, not both")
    # Not resolved: a virtual environment's python is a link, and what it points to has no packages.
    its = site_file.read(site_file.find(site, home()))
    ranks = python_of(venv) if venv else (python or Path(its.python or sys.executable)).expanduser().absolute()
    folder = runs or rules.runs_folder(its, getpass.getuser()) or home() / "runs"
    conf = slurm_conf.expanduser().absolute() if slurm_conf is not None else None
    with errors.status("Looking around"):
        findings = examination.examine(
            home(),
            folder.expanduser().absolute(),
            ranks,
            conf,
            known=commands_there() and configured(conf),
            load=worker,
        )
    level = examination.worst(findings)
    counts = Counter(found.level.word for found in findings)
    if as_json:
        print_json(
            {
                "level": level.word,
                "counts": {word.word: counts[word.word] for word in Level},
                "findings": [_as_json(found) for found in findings],
            }
        )
    else:
        _show([found for found in findings if show_all or found.level != Level.OK])
        _sum_up(counts, show_all=show_all)
    raise typer.Exit(Exit.BADLY if level == Level.PROBLEM else Exit.WELL)


def _as_json(found: Finding) -> dict[str, Any]:
    return {
        "area": found.area,
        "check": found.check,
        "level": found.level.word,
        "found": found.found,
        "why": found.why,
        "cure": found.cure,
    }


def _show(findings: list[Finding]) -> None:
    """A table of level and check; beside them what was found, why it matters and the cure, one below the other."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for found in findings:
        words = Text(found.found)
        words.append(f"\n{found.why}", style="dim")
        if found.cure:
            words.append(f"\n-> {found.cure}")
        table.add_row(Text(found.level.word, style=STYLES[found.level.word]), Text(found.check), words)
    console.print(table)


def _sum_up(counts: Counter[str], *, show_all: bool) -> None:
    words = ", ".join(f"{counts[word]} {word}{'s' if counts[word] != 1 and word != 'ok' else ''}" for word in STYLES)
    hint = "" if show_all else "; --all shows what is well"
    slurm = os.environ.get("SLURM_CONF")
    errors.print(f"{words}{hint}{f' (SLURM_CONF={slurm})' if slurm else ''}", markup=False, soft_wrap=True)
