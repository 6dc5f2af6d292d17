"""Killing the service, or never having it, loses no record: the database equals the spool."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path

from support.lockstep import Lockstep, spool, wait_for


def stored(ours: Lockstep, job_id: str) -> list[tuple[int, int, int]]:
    """(attempt, rank, seq) of every record that the database has of a job."""
    with sqlite3.connect(f"file:{ours.home / 'lockstep.db'}?mode=ro", uri=True) as connection:
        chunks = connection.execute("SELECT body FROM chunks WHERE job_id = ?", (job_id,)).fetchall()
    records = [json.loads(line) for (body,) in chunks for line in gzip.decompress(body).splitlines()]
    return sorted((record["attempt"], record["rank"], record["seq"]) for record in records)


def assert_complete(ours: Lockstep, job_id: str) -> None:
    """The database has what the spool has, each record once, and each rank's numbers without a hole."""
    run = Path(ours.job(job_id)["run_dir"])
    identities = sorted((record["attempt"], record["rank"], record["seq"]) for record in spool(run))
    assert len(identities) == len(set(identities))
    assert stored(ours, job_id) == identities
    for rank in {identity[1] for identity in identities}:
        numbers = [seq for _, r, seq in identities if r == rank]
        assert numbers == list(range(1, len(numbers) + 1))


def test_killed_in_the_middle_and_started_again(lockstep_without_service: Lockstep) -> None:
    ours = lockstep_without_service
    ours.start()
    job = ours.submit()
    wait_for("some records", lambda: (ours.job(job)["last"]["step"] or 0) > 20)
    for _ in range(2):
        ours.kill()
        ours.start()
    ended = ours.until(job, {"ended well", "ended badly"})
    assert ended["phase"] == "ended well"
    assert len(ended["attempts"]) == 1
    assert_complete(ours, job)


def test_away_for_the_whole_job(lockstep_without_service: Lockstep) -> None:
    ours = lockstep_without_service
    ours.start()
    job = ours.submit()
    wait_for("Slurm to have it", lambda: ours.job(job)["slurm_job_id"])
    run = Path(ours.job(job)["run_dir"])
    ours.kill()
    wait_for("the training to end by itself", (run / "exit" / "1.json").exists, 120)
    assert json.loads((run / "exit" / "1.json").read_text())["code"] == 0
    ours.start()
    ended = ours.until(job, {"ended well", "ended badly"})
    assert ended["phase"] == "ended well"
    assert ended["state"] == "COMPLETED"
    assert ended["last"]["accuracy"] >= 0.97
    assert_complete(ours, job)
