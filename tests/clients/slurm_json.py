"""A second reading of Slurm's answers: ``squeue --json``, in both of the shapes that its versions print.

Lockstep itself asks with ``--Format``: one query for all jobs has to stay small, 22.05 prints every job whatever
``--jobs`` says, and it tells nothing more. So this is a witness: what it reads must be what a client says.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import SlurmJob


def read(text: str) -> list[SlurmJob]:
    """The jobs of a ``squeue --json``."""
    return [_job(row) for row in json.loads(text)["jobs"]]


def _job(row: dict[str, Any]) -> SlurmJob:
    words = row["job_state"]
    # 22.05 prints one word, in which a flag hides the state; 24.11 the list of them, the state first.
    state, flags = values.job_state(words if isinstance(words, str) else "+".join(words))
    ended = values.has_ended(state)
    code, signal = _end(row["exit_code"]) if ended else (None, None)
    return SlurmJob(
        id=row["job_id"],
        name=row["name"],
        state=state,
        flags=flags,
        reason=values.words_or_none(row["state_reason"]),
        nodes=values.host_names(row["nodes"]),
        restarts=row["restart_cnt"],
        exit_code=code,
        exit_signal=signal,
        submitted=_time(row["submit_time"]),
        started=_time(row["start_time"]),
        ended=_time(row["end_time"]) if ended else None,
    )


def _number(value: Any) -> int | None:
    """22.05 prints a number; 24.11 says whether there is one."""
    if isinstance(value, int):
        return value
    return int(value["number"]) if value["set"] and not value["infinite"] else None


def _time(value: Any) -> datetime | None:
    number = _number(value)
    return datetime.fromtimestamp(number, UTC) if number else None


def _end(value: Any) -> tuple[int | None, int | None]:
    """Exit code and signal: in 22.05 a wait status, in 24.11 told apart."""
    if isinstance(value, int):
        return values.wait_status(str(value))
    signal = _number(value["signal"]["id"])
    return (None, signal) if signal else (_number(value["return_code"]), None)
