"""Reads what a job has left: its spool, its checkpoints, its processes, Slurm's and the service's words."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from contextlib import suppress
from typing import Any

from faults.worker.evidence import Found, Step
from faults.worker.surroundings import Job, NotInTimeError, until
from lockstep_slurm.job.rundir import read_claims, spool_attempts, spool_files
from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import read
from lockstep_worker.checkpoint.folder import names
from support.ranks import processes_of

ENDED = ("ended well", "ended badly")
LEAVES = 60.0
"""Seconds in which the processes of an ended job have to be gone."""


def shown(job: Job) -> dict[str, Any]:
    """The job as the service has it, once it is over there."""
    return until("the job's end in the service", lambda: one if (one := job.show())["phase"] in ENDED else None)


def found(
    job: Job, *, slurm_state: str, service: dict[str, Any], saved: int, notes: tuple[str, ...] = (), again: bool = False
) -> Found:
    """What the job left, once all is over. ``service`` is what ``shown`` returned at the end that is to be judged."""
    left = _left(job)
    records, torn = _records(job)
    recorded = [
        Step(one["attempt"], one["rank"], one["step"], float(one["values"]["loss"]).hex())
        for one in records
        if one["kind"] == "step"
    ]
    dropped: defaultdict[tuple[int, int], int] = defaultdict(int)
    checkpoints: defaultdict[int, int] = defaultdict(int)
    for one in records:
        if one["kind"] == "gap":
            dropped[one["attempt"], one["rank"]] += one["values"]["dropped"]
        elif one["kind"] == "checkpoint" and "error" not in one["values"]:
            checkpoints[one["attempt"]] = max(checkpoints[one["attempt"]], one["step"])
    return Found(
        slurm_state=slurm_state,
        phase=service["phase"],
        state=service["state"] or "",
        reason=service["reason"] or "",
        attempts=len(read_claims(job.run)),
        total=job.total,
        trained=job.ledger(),
        recorded=recorded,
        dropped=dict(dropped),
        torn=torn,
        saved=saved,
        checkpoints=dict(checkpoints),
        unreadable=_unreadable(job),
        left=left,
        notes=notes,
        again=again,
    )


def failed_saves(job: Job) -> list[int]:
    """The steps whose checkpoints could not be saved, by the records so far."""
    return [one["step"] for one in _records(job)[0] if one["kind"] == "checkpoint" and "error" in one["values"]]


def _records(job: Job) -> tuple[list[dict[str, Any]], list[str]]:
    """Every whole record, and what is none or is not numbered as it should be."""
    records: list[dict[str, Any]] = []
    torn: list[str] = []
    for attempt in spool_attempts(job.run):
        for file in spool_files(job.run, attempt):
            seqs: defaultdict[int, list[int]] = defaultdict(list)
            for line in file.read_text().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    torn.append(f"{file.name} of attempt {attempt} has {line[:60]!r}")
                    continue
                seqs[record["rank"]].append(record["seq"])
                records.append(record)
            torn += [
                f"{file.name} of attempt {attempt}: the numbers of rank {rank} are not 1, 2, 3, ..."
                for rank, numbers in seqs.items()
                if numbers != list(range(1, len(numbers) + 1))
            ]
    return records, torn


def _unreadable(job: Job) -> list[str]:
    """The checkpoints, each read whole and compared with its SHA-256."""
    bad = []
    for name in names(job.checkpoints):
        try:
            read(job.checkpoints / name.file)
        except CheckpointError as error:
            bad.append(str(error))
    return bad


def _left(job: Job) -> list[str]:
    """What still runs of the job after a while; it is ended then, for the next fault's sake."""
    try:
        until("its processes to be gone", lambda: not processes_of(job.run), LEAVES)
    except NotInTimeError:
        left = processes_of(job.run)
        for one in left:
            with suppress(ProcessLookupError):
                os.kill(int(one.partition(":")[0]), signal.SIGKILL)
        return left
    return []
