"""How long 500 listeners wait for an event: from before the request that changes a job until each has it.

All listeners are connections of one client process, on the same CPUs as the service. Three cases: all on the list, all
on one job's page, and each on the page of a job of its own. Valid: every listener heard of every change of its job.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from benchmarks.report import Row, interval, paired
from benchmarks.serving.filled import SPEC
from benchmarks.serving.frame import Form, Found
from benchmarks.serving.served import Served, ServedError, served

LISTENERS = 500
QUICK, FULL = 6, 30
"""Changes that listeners hear of in a case."""
WITHIN = 60.0
"""Seconds after which an event that has not come is not waited for any more."""
TARGET_MILLISECONDS = 1000.0
PAUSE = 1.0
"""Seconds between two changes: longer than the pace of a stream, so that each is an event of its own."""


@dataclass
class Listener:
    """One open stream, and when it told of a change: moments by what the event's data has in it."""

    path: str
    heard: dict[str, float] = field(default_factory=dict)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, service: Served, mark: Callable[[str], str | None]) -> None:
        """Reads the stream until it is cancelled; ``mark`` is what an event is remembered by."""
        address = urlsplit(service.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 20)
        lines = [f"GET /api/v1{self.path} HTTP/1.1", f"Host: {address.netloc}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in service.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise ServedError(f"GET {self.path}: {status!r}")
        try:
            while line := await reader.readline():
                self.opened.set()
                if line.startswith(b"data:") and (found := mark(line.decode())) is not None:
                    self.heard.setdefault(found, time.perf_counter())
        finally:
            writer.close()


@dataclass(frozen=True)
class Case:
    """One way of listening."""

    name: str
    listeners: Sequence[Listener]
    mark: Callable[[str], str | None]
    changes: int
    everyone: bool
    """Whether a change concerns all listeners; else the one of its number."""


async def measured(service: Served, jobs: Sequence[str], case: Case) -> tuple[list[float], bool]:
    """By change: milliseconds until 95 of 100 whom it concerned had heard of it; and whether all of them did at last.

    A change is a hold, or its release, of a job that has not been dispatched.
    """
    tasks = [asyncio.create_task(one.listen(service, case.mark)) for one in case.listeners]
    try:
        await asyncio.wait_for(asyncio.gather(*(one.opened.wait() for one in case.listeners)), WITHIN)
        percentiles, complete = [], True
        for number in range(case.changes):
            await asyncio.sleep(PAUSE)
            concerned = case.listeners if case.everyone else [case.listeners[number]]
            job = jobs[0] if case.everyone else jobs[number]
            held = number % 2 == 0 or not case.everyone
            mark = job if case.mark is listed else str(held)
            for one in concerned:
                one.heard.clear()
            began = time.perf_counter()
            await asyncio.to_thread(post, service, f"/jobs/{job}/{'hold' if held else 'release'}", {})
            ends = began + WITHIN
            # An asyncio.Event for each listener would cost what is measured.
            while time.perf_counter() < ends and not all(mark in one.heard for one in concerned):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            complete &= all(mark in one.heard for one in concerned)
            waits = [one.heard.get(mark, ends) - began for one in concerned]
            percentiles.append(percentile(waits) * 1000)
        return percentiles, complete
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


def post(service: Served, path: str, document: Mapping[str, object]) -> bytes:
    """The answer, over a connection of its own: one that is kept would be closed between two changes."""
    caller = service.connect()
    try:
        return caller.post(path, document)
    finally:
        caller.close()


def listed(line: str) -> str | None:
    """Of an event of the list: the job's id."""
    return str(json.loads(line.removeprefix("data:"))["id"])


def held(line: str) -> str | None:
    """Of an event of a job's page: whether the job is held; None for an event of another kind."""
    found = json.loads(line.removeprefix("data:")).get("held")
    return None if found is None else str(found)


def measure(form: Form) -> Found:
    """The rows of the three cases."""
    changes = QUICK if form.quick else FULL
    rows = []
    # Without dispatch: what a listener hears of is what this benchmark changes.
    with served(form.folder / "home", client="local", settings={"LOCKSTEP_DISPATCH": "false"}) as service:
        jobs = [str(json.loads(post(service, "/jobs", SPEC))["id"]) for _ in range(LISTENERS)]
        pages = [Listener(f"/jobs/{job}/events") for job in jobs]
        cases = (
            Case("all on the list", [Listener("/events") for _ in jobs], listed, changes, everyone=True),
            Case("all on one job's page", [Listener(pages[0].path) for _ in jobs], held, changes, everyone=True),
            Case("each on a job's page of its own", pages, held, 2 * changes, everyone=False),
        )
        for case in cases:
            form.say(f"{LISTENERS} listeners, {case.name}")
            found, complete = asyncio.run(measured(service, jobs, case))
            rows.append(row_of(case, found, valid=complete))
    return Found(tuple(rows), (f"listeners: {changes} changes, {PAUSE:g} s apart; twice as many in the last case.",))


def row_of(case: Case, percentiles: Sequence[float], *, valid: bool) -> Row:
    """The peer is what was promised; where a change concerns one listener, the percentile is over the changes."""
    row = paired(
        case=f"{len(case.listeners)} listeners, {case.name}",
        metric="an event at 95 % of them",
        unit="ms",
        ours=percentiles,
        peer=[TARGET_MILLISECONDS] * len(percentiles),
        peer_name="the target",
        valid=valid,
    )
    if not case.everyone:
        ratio, low, high = interval(
            len(percentiles), lambda drawn: TARGET_MILLISECONDS / percentile([percentiles[one] for one in drawn])
        )
        row = replace(row, ours=percentile(percentiles), ratio=ratio, ratio_low=low, ratio_high=high)
    return replace(row, target=1.0)


def percentile(figures: Sequence[float]) -> float:
    """The least figure that 95 of 100 do not exceed."""
    return sorted(figures)[math.ceil(0.95 * len(figures)) - 1]
