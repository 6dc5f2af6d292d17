"""``GET /jobs`` with 100,000 jobs in the database beside the same with 1,000: no list grows slow with its history.

Two services, each with a database of its own, answer by turns. Valid: each page had the jobs that it had to have.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.report import Row, paired
from benchmarks.serving import postgres
from benchmarks.serving.filled import fill
from benchmarks.serving.frame import Form, Found, take_turns
from benchmarks.serving.served import Caller, ServedError, served

MANY, FEW = 100_000, 1_000
PAGE = 50
LOOKS = 20
"""Requests of an arm in a round, of which the median counts."""
TARGET = 1 / 1.5


class List:
    """A service and what its list has to be."""

    def __init__(self, caller: Caller, ids: list[str]) -> None:
        self._caller = caller
        self._newest = ids[::-1]
        self.wrong = 0

    def first(self, _round: int) -> float:
        """Seconds of the first page."""
        return self._timed(f"/jobs?limit={PAGE}", self._newest[:PAGE])

    def middle(self, _round: int) -> float:
        """Seconds of a page in the middle of the list."""
        half = len(self._newest) // 2
        return self._timed(f"/jobs?limit={PAGE}&cursor={self._newest[half - 1]}", self._newest[half : half + PAGE])

    def _timed(self, path: str, expected: list[str]) -> float:
        seconds = []
        for _ in range(LOOKS):
            began = time.perf_counter()
            status, body = self._caller.call("GET", path)
            seconds.append(time.perf_counter() - began)
            if status != 200:
                raise ServedError(f"GET {path}: {status} {body.decode(errors='replace')[:500]}")
            if [job["id"] for job in json.loads(body)["items"]] != expected:
                self.wrong += 1
        return statistics.median(seconds)


def measure(form: Form) -> Found:
    """The first page, and one in the middle, on SQLite and on PostgreSQL."""
    rounds = 10 if form.quick else 40
    rows, notes = [], []
    rows += compared("SQLite", form.folder, {FEW: None, MANY: None}, rounds, form.say)
    if form.quick:
        notes.append("GET /jobs: on SQLite only; the full form has PostgreSQL as well.")
    else:
        try:
            with postgres.running(form.folder / "pg") as cluster:
                urls: dict[int, str | None] = {count: cluster.database(f"jobs{count}") for count in (FEW, MANY)}
                rows += compared("PostgreSQL", form.folder, urls, rounds, form.say)
        except postgres.PostgresError as error:
            notes.append(f"PostgreSQL is left out: {error}")
    return Found(tuple(rows), tuple(notes))


def compared(
    name: str, folder: Path, urls: dict[int, str | None], rounds: int, say: Callable[[str], None]
) -> list[Row]:
    """The rows of one kind of database; ``urls`` by the number of jobs, None for SQLite in the home."""
    with ExitStack() as stack:
        ids = {}
        for count, url in urls.items():
            say(f"{name}: storing {count:,} jobs")
            ids[count] = fill(folder / f"{name.lower()}-{count}", url, count)
        lists = {}
        for count, url in urls.items():
            home = folder / f"{name.lower()}-{count}"
            service = stack.enter_context(served(home, client="local", database_url=url))
            caller = service.connect()
            stack.callback(caller.close)
            lists[count] = List(caller, ids[count])
        say(f"{name}: {rounds} rounds")
        rows = []
        for page in ("first", "middle"):
            arms = {str(count): getattr(one, page) for count, one in lists.items()}
            take_turns(arms, 1)  # not counted: connections are made, caches are filled
            costs = take_turns(arms, rounds)
            row = paired(
                case=f"GET /jobs, {page} page of {PAGE}, {name}",
                metric=f"time with {MANY:,} jobs",
                unit="ms",
                ours=[seconds * 1000 for seconds in costs[str(MANY)]],
                peer=[seconds * 1000 for seconds in costs[str(FEW)]],
                peer_name=f"with {FEW:,} jobs",
                valid=not any(one.wrong for one in lists.values()),
            )
            rows.append(replace(row, target=TARGET))
        return rows
