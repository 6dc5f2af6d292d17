"""``squeue``: one bulk query with only the fields needed, and how its lines are read."""

from __future__ import annotations

import logging

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import SlurmJob
from lockstep_slurm.client.runner import Runner

_log = logging.getLogger(__name__)

FIELDS = (
    "JobID",
    "State",
    "RestartCnt",
    "exit_code",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "NodeList",
    "Reason",
    "Name",
)
# ASCII's unit and record separators: unlike "|", blanks and newlines they are in no name that a person types. The name
# is last, so that whatever is in it moves no other field. A field with a suffix and no width is neither padded nor cut
# (22.05).
UNIT = "\x1f"
RECORD = "\x1e"
EPOCH = {"SLURM_TIME_FORMAT": "%s"}
"""Times as seconds since the epoch, so that no clock change makes them ambiguous; for queries only."""


def jobs(runner: Runner, user: str, name: str | None = None) -> list[SlurmJob]:
    """The user's jobs in the queue, ended ones included as long as Slurm keeps them (MinJobAge)."""
    return parse(runner.ask(arguments(user, name), extra=EPOCH))


def arguments(user: str, name: str | None = None) -> list[str]:
    """The command line."""
    fields = ",".join(f"{field}:{RECORD if field == FIELDS[-1] else UNIT}" for field in FIELDS)
    only = [f"--name={name}"] if name is not None else []
    return ["squeue", "--noheader", f"--user={user}", "--states=all", *only, f"--Format={fields}"]


def parse(out: str) -> list[SlurmJob]:
    """The jobs of squeue's answer. What a record separator in a job's own name leaves over is left out."""
    found = []
    for record in out.split(RECORD):
        texts = record.removeprefix("\n").split(UNIT, len(FIELDS) - 1)
        if texts == [""]:
            continue
        if len(texts) != len(FIELDS) or not texts[0].isdigit():
            _log.warning("squeue: a record with %d of %d fields is left out: %r", len(texts), len(FIELDS), record[:200])
            continue
        found.append(_job(dict(zip(FIELDS, texts, strict=True))))
    return found


def _job(field: dict[str, str]) -> SlurmJob:
    state, flags = values.job_state(field["State"])
    ended = values.has_ended(state)
    code, number = values.wait_status(field["exit_code"]) if ended else (None, None)
    return SlurmJob(
        id=int(field["JobID"]),
        name=field["Name"],
        state=state,
        flags=flags,
        reason=values.words_or_none(field["Reason"]),
        nodes=values.host_names(field["NodeList"]),
        restarts=int(field["RestartCnt"]),
        exit_code=code,
        exit_signal=number,
        submitted=values.epoch(field["SubmitTime"]),
        started=values.epoch(field["StartTime"]),
        ended=values.epoch(field["EndTime"]) if ended else None,
    )
