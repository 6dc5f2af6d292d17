"""``lockstep submit --dry-run``: what a submission would come to: the script on standard output, words beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.text import Text

from lockstep_slurm.cli.api import Api, Json
from lockstep_slurm.cli.output import Exit, errors, print_json

_TRIES = 5
_NAMES = 8
_WIDTH = 80
"""Of the picture where the output has no width of its own."""


def show(api: Api, spec: Json, query: Mapping[str, str], *, as_json: bool, names: Sequence[str] = ()) -> Exit:
    """Prints the preview of ``spec``; what the command ends with: INPUT where Slurm would refuse the job.

    ``query``: after which job it is to come. ``names``: of the jobs, where it is the first of several.

    Only the script goes to standard output, so that it can be kept; all that is said of it to standard error.
    """
    found = _asked(api, spec, query)
    if as_json:
        print_json({"jobs": len(names), "names": names, "first": found} if names else found)
    else:
        _print(found)
        if names:
            errors.print(f"{_counted(len(names), 'job')}, of which this is the first: {_some(names)}", markup=False)
    return Exit.INPUT if found["slurm"]["opinion"] == "refused" else Exit.WELL


def _asked(api: Api, spec: Json, query: Mapping[str, str]) -> Json:
    """The preview, asked for again where Slurm was asked about something else a moment ago."""
    for _ in range(_TRIES):
        found = api.post("/jobs/preview", spec, None, **query)
        if found["slurm"]["opinion"] != "not asked":
            break
        # Not a guess: the service says when Slurm may be asked again.
        time.sleep(found["slurm"]["ask_again_s"])
    return found


def _print(found: Json) -> None:
    spec, slurm, placement = found["spec"], found["slurm"], found["placement"]
    sys.stdout.write(found["script"])
    errors.print(Text("\nNothing was stored or submitted.", style="bold"))
    size = f"{_counted(found['ranks'], 'rank')} on {_counted(spec['resources']['nodes'], 'node')}"
    errors.print(f"{spec['name']}: {size}", markup=False)
    if found["filled"]:
        errors.print(f"from the site: {', '.join(found['filled'])}", markup=False, soft_wrap=True)
    errors.print(Text.assemble("Slurm: ", _opinion(slurm)), soft_wrap=True)
    if placement is not None:
        _picture(placement)
    for sentence in found["warnings"]:
        errors.print(Text.assemble(("note: ", "yellow"), sentence), soft_wrap=True)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= _NAMES else (*names[: _NAMES - 1], "...", names[-1]))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _opinion(slurm: Json) -> Text:
    opinion, message = slurm["opinion"], slurm["message"]
    if opinion == "would start":
        start = datetime.fromisoformat(slurm["expected_start"]).astimezone()
        where = f" on {', '.join(slurm['nodes'])}" if slurm["nodes"] else ""
        return Text(f"it would start at {start:%Y-%m-%d %H:%M:%S}{where}", style="green")
    if opinion == "refused":
        return Text(f"it would be refused: {message}", style="red")
    return Text(message, style="yellow")


def _picture(placement: Json) -> None:
    from rich.console import Console

    from lockstep_slurm.cli import core_map
    from lockstep_slurm.placement import Placement, Topology
    from lockstep_slurm.placement.picture import picture

    width = errors.width if sys.stderr.isatty() else _WIDTH
    paper = Console(stderr=True, highlight=False, width=width)
    machine, planned = Topology.parse(placement["topology"]), Placement.parse(placement["placement"])
    paper.print(Text(core_map.headline(machine), style="bold"))
    for line in core_map.lines(picture(machine, planned, placement["granted"]), width):
        paper.print(line, no_wrap=True, overflow="ignore", crop=False)
    paper.print(core_map.ranks(planned))
