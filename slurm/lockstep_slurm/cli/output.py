"""How the command speaks: tables and words for people, JSON for scripts, exit codes that mean something."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.text import Text

# A file or a pipe has no width of its own: there nothing is folded to fit one.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)

STYLES = {
    "accepted": "cyan",
    "waiting": "yellow",
    "running": "blue",
    "ended well": "green",
    "ended badly": "red",
    "unknown": "magenta",
}


class Exit(IntEnum):
    """What an exit code of ``lockstep`` means; ``docs/command-line.md`` has the same table."""

    WELL = 0
    BADLY = 1
    """The job ended badly, or what was asked could not be done."""
    INPUT = 2
    """The input was wrong; nothing was stored or submitted."""
    UNREACHABLE = 3
    """The service or Slurm did not answer, or could not just now; nothing is known."""
    INTERRUPTED = 130


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def phase(job: Mapping[str, Any]) -> Text:
    """A job's phase in its colour."""
    word = str(job["phase"])
    return Text(word, style=STYLES.get(word, ""))


def number(value: float | None, digits: int = 4) -> str:
    """A figure for people: significant digits and thousands separated; "-" where nothing is known."""
    if value is None:
        return "-"
    rounded = f"{value:.{digits}g}"
    # Rounded first: 9,999.6 has five digits by then, for which the general form is 1e+04.
    if isinstance(value, int) or abs(float(rounded)) >= 10**digits:
        return f"{value:,.0f}"
    return rounded


def age(time: str | None) -> str:
    """How long ago an RFC 3339 time was, in one unit."""
    return "-" if time is None else _in_one_unit((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())


def until(time: str) -> str:
    """In how long an RFC 3339 time will be, in one unit; 0 s where it has passed."""
    return _in_one_unit((datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds())


def _in_one_unit(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
