"""A job's timeline in words: what ``lockstep show`` says of what happened to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from lockstep_slurm.cli.api import Api, Json

MOST_ENTRIES = 30
_PAGE = 1000


def read(api: Api, job_id: str) -> list[Json]:
    """All entries, in the order in which the service learnt of things."""
    found: list[Json] = []
    cursor: str | None = None
    while True:
        page = api.get(f"/jobs/{job_id}/timeline", limit=_PAGE, **({"cursor": cursor} if cursor else {}))
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def lines(entries: Sequence[Json]) -> Iterator[str]:
    """The newest entries, one a line with its time by this machine's clock; cut with a word where there are many."""
    if (left_out := len(entries) - MOST_ENTRIES) > 0:
        yield f"... {left_out} earlier: --json has all of them"
    for entry in entries[-MOST_ENTRIES:]:
        yield f"{datetime.fromisoformat(entry['time']).astimezone():%Y-%m-%d %H:%M:%S}  {entry['text']}"
