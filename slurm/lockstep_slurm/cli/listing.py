"""The table of jobs that ``lockstep ls`` prints, in the width that there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lockstep_slurm.cli.api import Json
from lockstep_slurm.cli.output import age, number, phase

_HEADINGS = ("JOB", "NAME", "PHASE", "STATE", "NODES", "SAMPLES/S", "LOSS", "ACCURACY", "AGE")
_TO_THE_RIGHT = {"NODES", "SAMPLES/S", "LOSS", "ACCURACY", "AGE"}
_LEFT_OUT = ("ACCURACY", "STATE", "NODES", "LOSS", "AGE")
"""Where there is no room, one after another: ``lockstep show`` has them."""
_SHORT = 12
"""The end of an id, by which every command knows a job."""


def table(jobs: Sequence[Json], console: Console) -> Table:
    """The jobs, a line each, with as many columns as fit the terminal; all of them where there is none.

    An id or a figure that is cut is worth nothing, so columns are left out instead. Only a name that is still too long
    then goes on in the next line.
    """
    found = _table(jobs, frozenset(), short=False)
    if not console.is_terminal:
        return found
    for found in _narrower(jobs):
        if console.measure(found, options=console.options.update(width=1000)).maximum <= console.width:
            return found
    name = found.columns[1]
    name.no_wrap, name.overflow = False, "fold"
    return found


def _narrower(jobs: Sequence[Json]) -> Iterator[Table]:
    yield _table(jobs, frozenset(), short=False)
    for count in range(len(_LEFT_OUT) + 1):
        yield _table(jobs, frozenset(_LEFT_OUT[:count]), short=True)


def _table(jobs: Sequence[Json], without: frozenset[str], *, short: bool) -> Table:
    found = Table(box=None, pad_edge=False)
    shown = [heading for heading in _HEADINGS if heading not in without]
    for heading in shown:
        found.add_column(heading, no_wrap=True, justify="right" if heading in _TO_THE_RIGHT else "left")
    for job in jobs:
        cells = _cells(job, short=short)
        found.add_row(*(cells[heading] for heading in shown))
    return found


def _cells(job: Json, *, short: bool) -> dict[str, str | Text]:
    last = job["last"]
    return {
        "JOB": job["id"][-_SHORT:] if short else job["id"],
        "NAME": Text(job["name"]),
        "PHASE": phase(job),
        "STATE": job["state"] or "-",
        "NODES": str(job["nodes_requested"]),
        "SAMPLES/S": number(last["samples_per_s"]),
        "LOSS": number(last["loss"]),
        "ACCURACY": number(last["accuracy"]),
        "AGE": age(job["created_at"]),
    }
