"""A database with many jobs in it, as if the service had seen them all to their end."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, inspect, select

from benchmarks.serving.served import ServedError, served
from lockstep_service.database import Database
from lockstep_service.settings import Settings
from lockstep_service.tables import AttemptRow, JobRow
from lockstep_service.wire import now
from lockstep_slurm.job.identity import new_job_id

SPEC: dict[str, Any] = {"name": "listed", "training": {"model": "digits-mlp", "data": "digits", "epochs": 1}}
PIECE = 1000
ENDED = ("ended well", "ended well", "ended well", "ended badly")


def fill(home: Path, database_url: str | None, count: int) -> list[str]:
    """Makes ``home`` with a database of ``count`` ended jobs, one attempt each; their ids, oldest first.

    Each is the copy of one that the service stored, its whole script and spec included.
    """
    with served(home, client="local", database_url=database_url, settings={"LOCKSTEP_DISPATCH": "false"}) as service:
        caller = service.connect()
        first = str(json.loads(caller.post("/jobs", SPEC))["id"])
        caller.close()
    url = Settings(home=home, database_url=database_url).url
    database = Database(url)
    with database.reading() as session:
        row = session.scalars(select(JobRow).where(JobRow.id == first)).one()
        like = {column.key: getattr(row, column.key) for column in inspect(JobRow).column_attrs}
    began = now() - timedelta(days=365)
    ids = []
    for start in range(1, count, PIECE):
        jobs, attempts = [], []
        for number in range(start, min(start + PIECE, count)):
            job_id, moment = new_job_id(), began + timedelta(seconds=number)
            ids.append(job_id)
            jobs.append(
                like | {
                    "id": job_id, "run_dir": str(home / "runs" / job_id), "created_at": moment, "changed_at": moment,
                    "dispatched_at": moment, "started_at": moment, "ended_at": moment, "slurm_job_id": number,
                    "state": "COMPLETED", "phase": ENDED[number % len(ENDED)], "final": True,
                }
            )  # fmt: skip
            attempts.append(
                {"job_id": job_id, "number": 1, "slurm_job_id": number, "restart_count": 0, "nodes": ["node1"],
                 "ranks": 1, "started_at": moment, "ended_at": moment, "exit_code": 0}
            )  # fmt: skip
        with database.writing() as session:
            session.execute(insert(JobRow), jobs)
            session.execute(insert(AttemptRow), attempts)
    database.close()
    if len(ids) != count - 1:
        raise ServedError(f"{len(ids)} jobs were made instead of {count - 1}")
    return [*ids, first]
