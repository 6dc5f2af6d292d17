"""What every benchmark has in common: paired ratios with their spread, the table, and the JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESAMPLES = 2000
HEADINGS = ("case", "metric", "ours", "peer", "ratio (95 %)", "valid")


@dataclass(frozen=True)
class Row:
    """One comparison; ``ratio`` is such that larger is better for us."""

    case: str
    metric: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    ratio_low: float
    ratio_high: float
    target: float | None
    simulated: bool
    valid: bool


def paired(
    *,
    case: str,
    metric: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    valid: bool,
    groups: Sequence[int] | None = None,
) -> Row:
    """A row from paired costs (smaller is better), measured in turn: medians, and the median of peer/ours per pair.

    ``ratio_low`` and ``ratio_high`` are the bootstrap 95 % interval of that median. Pairs that have something in common
    (one launch of both) have the same number in ``groups``: groups are drawn first, then pairs within each, so that
    many pairs of few launches do not pass for many launches.
    """
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    together: dict[int, list[float]] = {}
    for ratio, group in zip(ratios, groups or [0] * len(ratios), strict=True):
        together.setdefault(group, []).append(ratio)
    by_group = list(together.values())
    dice = random.Random(0)  # noqa: S311 - resampling, the same on every run
    medians = sorted(
        statistics.median(
            ratio for group in dice.choices(by_group, k=len(by_group)) for ratio in dice.choices(group, k=len(group))
        )
        for _ in range(RESAMPLES)
    )
    return Row(
        case=case,
        metric=metric,
        unit=unit,
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        peer_name=peer_name,
        ratio=statistics.median(ratios),
        ratio_low=medians[int(0.025 * RESAMPLES)],
        ratio_high=medians[int(0.975 * RESAMPLES)],
        target=None,
        simulated=False,
        valid=valid,
    )


def interval(rounds: int, statistic: Callable[[Sequence[int]], float]) -> tuple[float, float, float]:
    """``statistic`` of all rounds, and its bootstrap 95 % interval: whole rounds are drawn."""
    dice = random.Random(0)  # noqa: S311 - resampling, the same on every run
    drawn = sorted(statistic(dice.choices(range(rounds), k=rounds)) for _ in range(RESAMPLES))
    return statistic(range(rounds)), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]


def publish(name: str, rows: Sequence[Row], *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """Prints the rows; exits 0 whatever the figures, since a benchmark measures and does not judge.

    ``notes`` are sentences that belong to the table: what could not be measured here, and why.
    """
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}"
    if as_json:
        document = {"name": name, "machine": machine, "rows": [asdict(row) for row in rows]}
        json.dump(document | ({"notes": list(notes)} if notes else {}), sys.stdout, indent=2)
        print()
        return
    table = Table(title=f"{name} ({machine})")
    for heading in HEADINGS:
        table.add_column(heading)
    for row in rows:
        table.add_row(*cells(row))
    console = Console()
    console.print(table)
    for note in notes:
        console.print(f"- {note}", markup=False, highlight=False)


def cells(row: Row) -> list[str]:
    """A row as people read it, under ``HEADINGS``."""
    return [
        row.case,
        f"{row.metric}, {row.unit}",
        figure(row.ours),
        f"{figure(row.peer)} ({row.peer_name})",
        f"{row.ratio:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f})",
        "yes" if row.valid else "NO",
    ]


def figure(value: float) -> str:
    """Three digits that say something, never with an exponent where a person would write none."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e12 else f"{value:.3g}"


def markdown(document: Mapping[str, Any]) -> str:
    """The table of what ``--json`` printed, for a page of documentation, with the notes below it."""
    lines = [f"{document['name']} ({document['machine']})", ""]
    lines += [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(cells(Row(**row)))} |" for row in document["rows"]]
    notes = [f"- {note}" for note in document.get("notes", ())]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def main() -> None:
    """``python -m benchmarks.report FILE``: the table of a benchmark's JSON, as Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path, help="what a benchmark printed with --json")
    file = parser.parse_args().file
    try:
        made = markdown(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"benchmarks.report: {file} is not what a benchmark prints with --json: {error!r}")
    print(made, end="")


if __name__ == "__main__":
    main()
