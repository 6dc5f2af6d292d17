"""Scalar values per second, acknowledged durable over HTTP, and what a chart of a long training costs.

Both servers are one process with one client on one kept connection, and get 1,000 values a request. A value counts once
its request is answered; requests are made beforehand, ours as the workers send them (gzip NDJSON), MLflow's as
``log-batch`` takes them. Valid: afterwards each has as many values as it was sent.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.report import Row, paired
from benchmarks.serving import mlflow, postgres
from benchmarks.serving.environments import PeerError, provide
from benchmarks.serving.frame import Form, Found, rate, take_turns
from benchmarks.serving.served import Caller, Served, ServedError, served
from lockstep_service.auth.service import token_hash
from lockstep_service.database import Database
from lockstep_service.jobs import repository as jobs
from lockstep_service.settings import Settings
from lockstep_service.tables import ChunkRow

OURS, PEER = "Lockstep", "MLflow, log_batch"
VALUES = 1000
"""Scalars in a request: the most that MLflow takes."""
SHAPES = {"8 figures a step": 8, "1 figure a step": 1}
NAMES = ("loss", "samples_per_s", "seconds", "communication_s", "epoch", "learning_rate", "gradient_norm", "momentum")
TOKEN = "benchmark"  # noqa: S105 - of a database that lasts as long as the benchmark
TARGET = 10.0
LONG, SHORT, POINTS = 1_000_000, 10_000, 1000
LOOKS = 20
"""Looks at a chart in a round, of whose times the 95th percentile counts."""
QUIET = {"LOCKSTEP_DISPATCH": "false"}
SPEC: dict[str, Any] = {"name": "ingest", "training": {"model": "digits-mlp", "data": "digits", "epochs": 1}}


@dataclass
class Ours:
    """A job of a running service, its token, and how far its one rank has reported."""

    service: Served
    database: Database
    shape: int
    """Values in a record."""
    sent: int = 0
    caller: Caller = field(init=False)
    job: str = field(init=False)

    def __post_init__(self) -> None:
        self.caller = self.service.connect()
        self.job = json.loads(self.caller.post("/jobs", SPEC))["id"]
        with self.database.writing() as session:
            row = jobs.lock(session, self.job)
            if row is None:
                raise ServedError("the job that was made is not in the database that the service was given")
            row.token_hash = token_hash(TOKEN)

    def bodies(self, count: int) -> list[bytes]:
        """The next ``count`` requests."""
        found = []
        for _ in range(count):
            each = VALUES // self.shape
            lines = "".join(record(self.sent + number + 1, self.shape) for number in range(each))
            self.sent += each
            found.append(gzip.compress(lines.encode(), 1))
        return found

    def send(self, bodies: Sequence[bytes]) -> float:
        """Seconds until the last of these is acknowledged."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": "gzip"}
        path = f"/jobs/{self.job}/records"
        answer = b""
        self.caller.close()  # it opens again: while the other arm had its turn, the server may have hung up
        began = time.perf_counter()
        for body in bodies:
            status, answer = self.caller.call("POST", path, body, headers)
            if status != 200:
                raise ServedError(f"POST {path}: {status} {answer[:500]!r}")
        seconds = time.perf_counter() - began
        if json.loads(answer)["acknowledged"] != {"1/0": self.sent}:
            raise ServedError(f"{self.sent} records were sent, and acknowledged was {answer!r}")
        return seconds

    def stored(self) -> int:
        """Values that its database has."""
        with self.database.reading() as session:
            wanted = select(func.sum(ChunkRow.records)).where(ChunkRow.job_id == self.job)
            return self.shape * int(session.scalars(wanted).one() or 0)

    def look(self) -> float:
        """Seconds of one look at its chart."""
        began = time.perf_counter()
        status, body = self.caller.call("GET", f"/jobs/{self.job}/metrics?points={POINTS}")
        seconds = time.perf_counter() - began
        if status != 200 or not 0.4 * POINTS <= len(json.loads(body)["series"][0]["step"]) <= POINTS:
            raise ServedError(f"GET metrics: {status} {body[:500]!r}")
        return seconds


def record(seq: int, shape: int) -> str:
    """A line of a spool: a step with so many figures."""
    document = {
        "v": 1, "attempt": 1, "rank": 0, "seq": seq, "time": 1_764_000_000.0 + seq / 100, "kind": "step", "step": seq,
        "values": values_of(seq, shape),
    }  # fmt: skip
    return json.dumps(document, separators=(",", ":")) + "\n"


def values_of(step: int, shape: int) -> dict[str, float]:
    """Figures of a step, with as many digits as real ones have."""
    return {name: math.sin(step * (number + 1) * 0.001) + 2.0 for number, name in enumerate(NAMES[:shape])}


@contextlib.contextmanager
def ours_on(folder: Path, address: str | None) -> Iterator[tuple[Served, Database]]:
    """A service that dispatches nothing, and its database."""
    with served(folder, client="local", database_url=address, settings=QUIET) as service:
        settings = Settings(home=folder, database_url=address)
        database = Database(settings.url)
        try:
            yield service, database
        finally:
            database.close()


@dataclass
class Theirs:
    """MLflow's side, with one run."""

    server: mlflow.Mlflow
    shape: int
    sent: int = 0

    def bodies(self, count: int) -> list[bytes]:
        """The next ``count`` requests, of the same values as ours."""
        found = []
        for _ in range(count):
            steps = range(self.sent + 1, self.sent + VALUES // self.shape + 1)
            self.sent = steps[-1]
            found.append(self.server.body([pair for step in steps for pair in _triples(step, self.shape)]))
        return found

    def send(self, bodies: Sequence[bytes]) -> float:
        """Seconds until the last of these is answered."""
        self.server.connection.close()
        began = time.perf_counter()
        for body in bodies:
            self.server.log_batch(body)
        return time.perf_counter() - began


def _triples(step: int, shape: int) -> list[tuple[str, float, int]]:
    return [(name, value, step) for name, value in values_of(step, shape).items()]


def side_by_side(
    form: Form, case: str, ours: tuple[Served, Database], server: mlflow.Mlflow, *, rounds: int
) -> list[Row]:
    """The rows of one database, a row for each shape of a record."""
    rows = []
    for label, shape in SHAPES.items():
        form.say(f"{case}, {label}")
        server.begin()
        own, theirs = Ours(*ours, shape), Theirs(server, shape)
        requests = {OURS: 100, PEER: 5}
        own.send(own.bodies(5))
        theirs.send(theirs.bodies(1))

        arms: dict[str, Callable[[int], float]] = {
            OURS: partial(_cost, own, requests[OURS]),
            PEER: partial(_cost, theirs, requests[PEER]),
        }
        costs = take_turns(arms, rounds)
        server.connection.close()
        valid = own.stored() == own.sent * shape and server.count() == theirs.sent * shape
        rows.append(
            rate(case=f"{case}, {label}", metric="ingested", unit="values/s", costs=costs, ours=OURS, peer=PEER,
                 valid=valid, target=TARGET)
        )  # fmt: skip
        own.caller.close()
    return rows


def _cost(side: Ours | Theirs, requests: int, _round: int) -> float:
    """Seconds a value."""
    return side.send(side.bodies(requests)) / (VALUES * requests)


def _looks(side: Ours, _round: int) -> float:
    """Seconds, below which 19 of 20 looks stay."""
    side.caller.close()
    side.look()
    return statistics.quantiles([side.look() for _ in range(LOOKS)], n=20, method="inclusive")[-1]


def charts(form: Form, *, rounds: int) -> list[Row]:
    """A chart of a long training against one of a short, after both were ingested, and first after a restart."""
    long, short = (LONG // 10, SHORT // 10) if form.quick else (LONG, SHORT)
    folder = form.folder / "charts"
    with ours_on(folder, None) as parts:
        sides = {name: Ours(*parts, shape=1) for name in ("long", "short")}
        for name, count in (("long", long), ("short", short)):
            form.say(f"charts: {count:,} records")
            sides[name].send(sides[name].bodies(count // VALUES))

        costs = take_turns({name: partial(_looks, side) for name, side in sides.items()}, rounds)
        valid = all(side.stored() == count for side, count in zip(sides.values(), (long, short), strict=True))
    warm = _chart_row("chart", costs, f"of {short:,} records", long, valid=valid)
    cold: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(3 if form.quick else 10):
        with ours_on(folder, None) as (service, _):
            names = list(sides)
            for name in names[number % 2 :] + names[: number % 2]:
                side = sides[name]
                side.service, side.caller = service, service.connect()
                cold[name].append(side.look())
                side.caller.close()
    return [warm, _chart_row("chart, first look after a restart", cold, f"of {short:,} records", long, valid=valid)]


def _chart_row(case: str, costs: dict[str, list[float]], peer: str, long: int, *, valid: bool) -> Row:
    milliseconds = {name: [1000 * one for one in of] for name, of in costs.items()}
    row = paired(
        case=f"{case}, {POINTS:,} points of {long:,} records", metric="p95 of a look", unit="ms",
        ours=milliseconds["long"], peer=milliseconds["short"], peer_name=peer, valid=valid,
    )  # fmt: skip
    return replace(row, target=1 / 3)


def measure(form: Form) -> Found:
    """The rows: ours against MLflow on each database, and charts."""
    rounds = 5 if form.quick else 20
    rows: list[Row] = []
    notes: list[str] = []
    try:
        form.say("an environment with MLflow")
        python = provide(form.cache, "mlflow", mlflow.REQUIREMENTS)
        address = f"sqlite:///{form.folder / 'mlflow.db'}"
        with ours_on(form.folder / "ours", None) as ours, mlflow.serving(python, form.folder / "m", address) as server:
            rows += side_by_side(form, "SQLite", ours, server, rounds=rounds)
            notes.append(
                f"SQLite, on one disk: ours journal_mode wal, synchronous FULL; MLflow's as it sets it: "
                f"{mlflow.durability(python, address)}. Each acknowledged request was synchronised with the disk."
            )
        with postgres.running(form.folder / "pg") as cluster:
            addresses = [cluster.database(name) for name in ("ours", "mlflow")]
            with (
                ours_on(form.folder / "ours-pg", addresses[0]) as ours,
                mlflow.serving(python, form.folder / "m-pg", addresses[1]) as server,
            ):
                rows += side_by_side(form, "PostgreSQL", ours, server, rounds=rounds)
            notes.append("PostgreSQL: one server for both, fsync and synchronous_commit on.")
    except (PeerError, postgres.PostgresError) as error:
        notes.append(f"MLflow's rows are incomplete: {error}")
    rows += charts(form, rounds=rounds)
    return Found(tuple(rows), tuple(notes))
