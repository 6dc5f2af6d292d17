"""The figures of docs/reliability.md: a run's tables, between two marks of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from faults.table import Row

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: make faults WRITE=1 -->", "<!-- end of figures -->"


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
