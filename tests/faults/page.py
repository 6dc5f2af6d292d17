"""The figures of docs/reliability.md: a run's tables and the worker's matrix, each between two marks of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from faults.table import Row
from faults.worker import evidence as matrix
from faults.worker.table import markdown

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: make faults WRITE=1 -->", "<!-- end of figures -->"
MATRIX_BEGIN = "<!-- rows: make faults-worker WRITE=1 -->"


def with_figures(page: str, tables: Mapping[str, Sequence[Row]]) -> str:
    """The page's text with these tables; ``ValueError`` where a mark is missing."""
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"the page has no {BEGIN} with {END} behind it")
    parts = []
    for title, rows in tables.items():
        lines = "".join(f"| {row.what} | {row.found} | {row.wanted} |\n" for row in rows)
        parts.append(f"\n**{title[0].upper()}{title[1:]}**\n\n| | found | wanted |\n|---|---|---|\n{lines}")
    return f"{before}{BEGIN}\n{''.join(parts)}\n{END}{after}"


def with_matrix(page: str, rows: Sequence[matrix.Row], order: Sequence[str]) -> str:
    """The page's text with these rows of the worker's matrix; rows of other faults stay. ``ValueError`` as above.

    ``order`` has the faults in the order of the table; a row of a fault that is not in it any more goes.
    """
    before, begun, rest = page.partition(MATRIX_BEGIN)
    old, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"the page has no {MATRIX_BEGIN} with {END} behind it")
    heading = markdown(())
    lines = dict(
        zip((row.fault for row in rows), markdown(rows)[len(heading) :].splitlines(keepends=True), strict=True)
    )
    kept = {fault: f"{line}\n" for line in old.splitlines() for fault in order if line.startswith(f"| {fault} |")}
    table = "".join((kept | lines).get(fault, "") for fault in order)
    return f"{before}{MATRIX_BEGIN}\n\n{heading}{table}\n{END}{after}"
