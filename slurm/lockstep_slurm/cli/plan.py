"""``lockstep plan``: where a spec's ranks and threads would sit on a machine, as a picture or as data."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.jobs import JsonOption, SetOption, SpecArgument
from lockstep_slurm.cli.machine import TopologyOption, read
from lockstep_slurm.cli.output import console, print_json
from lockstep_slurm.cli.script import SiteOption

if TYPE_CHECKING:
    from lockstep_slurm.job.planned import Planned

WIDTH = 80
"""Of the picture where the output has no width of its own."""


def plan(
    file: SpecArgument,
    settings: SetOption = None,
    *,
    topology: TopologyOption = None,
    cpus: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="The CPUs that the job is given there, by Linux's numbers, such as 0-15,32-47.",
            show_default="all of them; on this machine those of this process",
        ),
    ] = None,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which rank and which thread gets which core, before there is a job."""
    from lockstep_slurm.job import file as spec_file
    from lockstep_slurm.job.planned import foresee
    from lockstep_slurm.placement import PlacementError
    from lockstep_slurm.site import file as site_file
    from lockstep_slurm.site import rules

    its = site_file.read(site_file.find(site, home()))
    spec = rules.fill(spec_file.read(file, settings or ()), its)
    if refused := rules.refusals(spec, its):
        raise spec_file.SpecError(str(file), [(where, sentence) for where, sentence, _ in refused])
    machine, granted = read(topology), _granted(cpus)
    if granted is None and topology is None:
        mine = os.sched_getaffinity(0)
        granted = tuple(cpu for cpu in machine.cpus if cpu in mine) if mine < set(machine.cpus) else None
    if unknown := set(granted or ()) - set(machine.cpus):
        from lockstep_slurm.placement.cpulist import compress

        raise spec_file.SpecError(
            "--cpus", [("", f"{compress(unknown)} not on this machine, which has {compress(machine.cpus)} online")]
        )
    try:
        planned = foresee(spec, machine, granted, mpi=its.mpi.type)
    except PlacementError as error:
        raise spec_file.SpecError(str(file), [("placement", str(error))]) from None
    if as_json:
        print_json(planned.document())
    else:
        _show(planned)


def _granted(text: str | None) -> tuple[int, ...] | None:
    from lockstep_slurm.job.file import SpecError
    from lockstep_slurm.placement.cpulist import parse

    if text is None:
        return None
    try:
        found = parse(text)
    except ValueError as error:
        raise SpecError("--cpus", [("", str(error))]) from None
    if not found:
        raise SpecError("--cpus", [("", "names no CPU; give a list such as 0-15,32-47, or leave it out")])
    return found


def _show(planned: Planned) -> None:
    """The picture, the table of ranks, what to know, the variables and the srun line."""
    from rich.console import Console
    from rich.text import Text

    from lockstep_slurm.cli import core_map
    from lockstep_slurm.placement.picture import picture

    width = console.width if sys.stdout.isatty() else WIDTH
    paper = Console(highlight=False, width=width)
    paper.print(Text(core_map.headline(planned.topology), style="bold"))
    for line in core_map.lines(picture(planned.topology, planned.placement, planned.granted), width):
        paper.print(line, no_wrap=True, overflow="ignore", crop=False)
    paper.print()
    paper.print(core_map.ranks(planned.placement))
    for sentence in planned.placement.degraded:
        paper.print(Text.assemble(("degraded: ", "yellow"), sentence))
    for sentence in planned.warnings:
        paper.print(Text.assemble(("note: ", "yellow"), sentence))
    paper.print()
    for name, value in planned.environment.items():
        paper.print(Text(f"{name}={shlex.quote(value)}"), soft_wrap=True)
    for number, own in enumerate(planned.variables):
        different = [f"{name}={shlex.quote(value)}" for name, value in own.items() if name not in planned.environment]
        if different:
            paper.print(Text(f"rank {number}: {' '.join(different)}"), soft_wrap=True)
    paper.print(Text(shlex.join(["srun", *planned.srun])), soft_wrap=True)
