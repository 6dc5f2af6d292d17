"""``python -m faults``: a run with a progress bar, then its table, or with ``--json`` one object."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from faults import away, page
from faults.run import perform, possible
from faults.schedule import FULL, SHORT
from faults.table import rows, rows_of_outage, table


def main() -> int:
    """0 when every submission trained exactly once, 1 when not, 2 where no run is possible."""
    parser = argparse.ArgumentParser(prog="python -m faults", description="Many submissions, while much goes wrong.")
    parser.add_argument("--submissions", type=int, help="how many; by default the form's own")
    parser.add_argument("--short", action="store_true", help="the form that `make test` runs: 100 submissions")
    parser.add_argument("--seed", type=int, help="of what goes wrong when; by default a new one, which is printed")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no table")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs, whatever comes out")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md")
    options = parser.parse_args()
    errors = Console(stderr=True)
    if (why := possible()) is not None:
        errors.print(why, markup=False)
        return 2
    form = SHORT if options.short else FULL
    if options.submissions is not None:
        form = dataclasses.replace(form, submissions=options.submissions)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    columns = (TextColumn("{task.description:>12}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors) as progress:
        task = progress.add_task("", total=1.0)

        def say(part: float, what: str) -> None:
            progress.update(task, completed=part, description=what or None)

        result = perform(form, seed, say, keep=options.keep)
        progress.console.print(table(f"{form.submissions} submissions", rows(result)))
        outage = away.measure(form, say) if form.measured else None
    tables = {f"{form.submissions} submissions": rows(result)}
    found = {"run": dataclasses.asdict(result) | {"folder": str(result.folder)}}
    findings = list(result.findings)
    if outage is not None:
        tables["slurmctld is down"] = rows_of_outage(outage)
        found["outage"] = dataclasses.asdict(outage)
        findings += away.findings(outage)
    if options.write:
        page.PAGE.write_text(page.with_figures(page.PAGE.read_text(), tables))
    if options.json:
        written = {title: [dataclasses.asdict(row) for row in its_rows] for title, its_rows in tables.items()}
        sys.stdout.write(json.dumps(found | {"tables": written, "findings": findings}, indent=2) + "\n")
    else:
        for title, its_rows in tables.items():
            Console().print(table(title, its_rows))
    for finding in findings:
        errors.print(finding, markup=False)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
