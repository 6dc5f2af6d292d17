"""The matrix as a table: for a terminal, and for docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from faults.worker.evidence import Row

HEADINGS = ("fault", "what came of it", "losses", "checkpoints", "spool", "left behind", "holds")


def cells(row: Row) -> tuple[str, ...]:
    """One line of either."""
    holds = "yes" if row.holds else "no: " + "; ".join(row.findings)
    return (row.fault, row.outcome, row.losses, row.checkpoints, row.spool, row.left, holds)


def terminal(rows: Sequence[Row]) -> Table:
    """With a colour for what does not hold."""
    made = Table(title="the worker's kill matrix", title_justify="left", show_lines=True)
    for heading in HEADINGS:
        made.add_column(heading)
    for row in rows:
        made.add_row(*cells(row), style=None if row.holds else "red")
    return made


def markdown(rows: Sequence[Row]) -> str:
    """The lines between the page's marks."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(cells(row) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
