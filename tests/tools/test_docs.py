"""The pages of docs/: each can be found from its index, and the index from the README."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def links(page: Path) -> list[Path]:
    """The files that a page of this repository links to, in its order."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [(page.parent / target).resolve() for target in targets]


def test_the_index_has_every_page_once() -> None:
    pages = {page for folder in (".", "benchmarks", "decisions") for page in (DOCS / folder).resolve().glob("*.md")}
    named = [page for page in links(DOCS / "index.md") if page.is_relative_to(DOCS)]
    assert sorted(named) == sorted(pages - {DOCS / "index.md"})


def test_the_readme_leads_to_the_index() -> None:
    assert DOCS / "index.md" in links(ROOT / "README.md")
