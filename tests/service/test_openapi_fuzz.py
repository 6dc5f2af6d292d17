"""Schemathesis calls every operation of the OpenAPI document: no 5xx, and no answer that the document does not have.

The short form is a part of the tests. ``FUZZ_CALLS=10000`` makes at least so many calls on each database, and
prints how many of what (docs/security.md has the last such run).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import NullPool, create_engine, text

from lockstep_service.auth.service import token_hash
from lockstep_service.jobs.schemas import EXAMPLE_ID
from lockstep_service.openapi import document
from lockstep_slurm.job.rundir import make_run_directory
from support.fuzzing import Found, fuzz, table

from .conftest import SPEC, HandMadeRun, Json

CALLS = int(os.environ.get("FUZZ_CALLS", "0"))
PROGRAM = """
import sys
from pathlib import Path
from lockstep_service import server
from lockstep_service.settings import Settings
home = Path(sys.argv[1])
sys.exit(server.run(Settings(home=home, database_url=sys.argv[2], client="local", dispatch=False)))
"""
JOB_TOKEN = "the job's token"


@dataclass
class Fuzzed:
    """A service with jobs in it."""

    url: str
    token: str
    log: Path
    known: dict[str, list[str]]


@pytest.fixture
def fuzzed(database_url: str, tmp_path: Path) -> Iterator[Fuzzed]:
    """A real server whose dispatch does not turn, with a run that has told of itself and a job that waits."""
    home, log = tmp_path / "home", tmp_path / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home), database_url], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while "listens at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        url = log.read_text().partition("listens at ")[2].split()[0]
        token = (home / "token").read_text().strip()
        ids = _filled(url, token, database_url, tmp_path)
        yield Fuzzed(url, token, log, {"path.id": ids, "body.token": [token], "query.cursor": ids})
    finally:
        process.terminate()
        process.wait(30)


def _filled(url: str, token: str, database_url: str, folder: Path) -> list[str]:
    """The ids of two jobs, the first of which is the document's example."""
    hand = HandMadeRun(
        make_run_directory(folder / "by-hand", EXAMPLE_ID, json.dumps(SPEC), "#!/bin/bash\n", by_hand=True)
    )
    hand.claim()
    hand.spool(
        *(
            hand.line(rank, step=step, loss=1 / step, samples=8, seconds=0.1)
            for step in range(1, 200)
            for rank in (0, 1)
        )
    )
    (hand.run / "logs" / "job-1.log").write_bytes(b"0: epoch 1\n\xff\n" * 100)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60) as client:
        client.post("/jobs/import", json={"run_dir": str(hand.run)}).raise_for_status()
        stored: Json = client.post("/jobs", json=SPEC).raise_for_status().json()
    address = database_url.replace("postgresql://", "postgresql+psycopg://")
    with create_engine(address, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE jobs SET token_hash = :hash"), {"hash": token_hash(JOB_TOKEN)})
    return [EXAMPLE_ID, str(stored["id"])]


def check(found: Found, fuzzed: Fuzzed) -> None:
    """Fails with what Schemathesis found."""
    errors = [line for line in fuzzed.log.read_text().splitlines() if " ERROR " in line or "Traceback" in line]
    if found.failed or errors or 0 in found.statuses:
        pytest.fail(f"{found.printed[-12_000:]}\n\nIn the service's log:\n" + "\n".join(errors[:20]), pytrace=False)
    assert not [status for status in found.statuses if status >= 500]


@pytest.mark.timeout(3 * 3600 if CALLS else 300)
def test_every_operation_answers_as_the_document_says(fuzzed: Fuzzed, tmp_path: Path) -> None:
    phases = "examples,coverage,fuzzing,stateful" if CALLS else "examples,coverage"
    asked = document()
    operations = sum(len(path) for path in asked["paths"].values())
    rounds = max(1, CALLS // operations)
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    every = fuzz(asked, fuzzed.url, fuzzed.token, fuzzed.known, tmp_path / "all", examples=rounds, seed=seed,
                 phases=phases, without=("post_records", "stream_events"))  # fmt: skip
    check(every, fuzzed)
    records = fuzz(asked, fuzzed.url, JOB_TOKEN, fuzzed.known, tmp_path / "records", examples=max(20, rounds),
                   seed=seed, phases="coverage,fuzzing", only="post_records")  # fmt: skip
    check(records, fuzzed)
    # Each of its calls takes seconds, whatever is asked.
    stream = fuzz(asked, fuzzed.url, fuzzed.token, {}, tmp_path / "stream", examples=10 if CALLS else 1, seed=seed,
                  phases="fuzzing", only="stream_events")  # fmt: skip
    check(stream, fuzzed)
    calls = every.calls + records.calls + stream.calls
    statuses = every.statuses + records.statuses + stream.statuses
    if CALLS:
        print(table(calls, statuses))
    assert sum(calls.values()) >= CALLS
    # As many operations were called as there are, and not only to be refused.
    assert len(calls) >= operations
    assert min(statuses[200], statuses[201], statuses[404], statuses[422]) > 0
