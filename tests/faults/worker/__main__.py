"""``python -m faults.worker``: the kill matrix with a progress bar, then its table, or with ``--json`` one object."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from faults import page
from faults.run import possible
from faults.worker.cases import CASES, FULL, QUICK
from faults.worker.matrix import perform
from faults.worker.table import terminal


def main() -> int:
    """0 when every row holds, 1 when not, 2 where no run is possible."""
    known = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="python -m faults.worker", description="Faults to a running training.")
    said = f"one of {', '.join(known)}; said several times, each of these"
    parser.add_argument("--only", action="append", metavar="NAME", choices=known, help=said)
    parser.add_argument("--quick", action="store_true", help="shorter cuts and stops than a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no table")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/reliability.md")
    said = "keep the losses of the uninterrupted run there, for further pieces of the same matrix"
    parser.add_argument("--reference", type=Path, metavar="FILE", help=said)
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--write: the table is of the full form, without --quick")
    errors = Console(stderr=True)
    if (why := possible()) is not None:
        errors.print(why, markup=False)
        return 2
    chosen = [case for case in CASES if options.only is None or case.name in options.only]
    columns = (TextColumn("{task.description:>12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=errors) as progress:
        task = progress.add_task("", total=1.0)

        def say(part: float, what: str) -> None:
            progress.update(task, completed=part, description=what or None)

        for row in perform(chosen, QUICK if options.quick else FULL, say, kept=options.reference):
            rows.append(row)
            if options.write:  # at once: what was tried is not lost where a later one is broken off
                page.PAGE.write_text(page.with_matrix(page.PAGE.read_text(), [row], [case.fault for case in CASES]))
            verdict = "holds" if row.holds else "; ".join(row.findings)
            progress.console.print(f"{row.name}: {row.outcome}; {verdict}", markup=False)
    if options.json:
        written = [dataclasses.asdict(row) | {"holds": row.holds} for row in rows]
        sys.stdout.write(json.dumps({"rows": written}, indent=2) + "\n")
    else:
        Console().print(terminal(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
