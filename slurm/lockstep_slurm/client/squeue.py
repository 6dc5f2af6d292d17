"""``squeue``: one bulk query with only the fields needed, and how its lines are read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

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
_LONGEST_LIST = 60_000
"""Characters of a list of names: Linux takes no argument of 128 KiB or more."""
EPOCH = {"SLURM_TIME_FORMAT": "%s"}
"""Times as seconds since the epoch, so that no clock change makes them ambiguous; for queries only."""


def jobs(runner: Runner, user: str, names: Sequence[str] | None = None) -> list[SlurmJob]:
    """The user's jobs in the queue, ended ones included as long as Slurm keeps them (MinJobAge).

    ``names``: fewer may be asked for than all, and those of other names may be among them all the same.
    """
    return parse(runner.ask(arguments(user, names), extra=EPOCH))


def arguments(user: str, names: Sequence[str] | None = None) -> list[str]:
    """The command line."""
    fields = ",".join(f"{field}:{RECORD if field == FIELDS[-1] else UNIT}" for field in FIELDS)
    only = only_named(names) if names is not None else []
    return ["squeue", "--noheader", f"--user={user}", "--states=all", *only, f"--Format={fields}"]


def only_named(names: Sequence[str]) -> list[str]:
    """The option by which squeue and sacct tell of jobs of these names only; none where it cannot say them."""
    listed = ",".join(names)
    if any("," in name for name in names) or len(listed) > _LONGEST_LIST:
        return []
    return [f"--name={listed}"]


class Queue:
    """The user's whole queue, again and again: of what has not changed since the last answer nothing is made anew."""

    def __init__(self, runner: Runner, user: str) -> None:
        self._runner = runner
        self._user = user
        self._known: dict[str, SlurmJob] = {}

    def jobs(self) -> list[SlurmJob]:
        """The user's jobs in the queue; one that says the same as before is the same object as before."""
        found = dict(_records(self._runner.ask(arguments(self._user), extra=EPOCH), self._known))
        # Whole, for other threads ask as well; and nothing that has left the queue.
        self._known = found
        return list(found.values())


def parse(out: str) -> list[SlurmJob]:
    """The jobs of squeue's answer. What a record separator in a job's own name leaves over is left out."""
    return [job for _, job in _records(out, {})]


def _records(out: str, known: Mapping[str, SlurmJob]) -> Iterator[tuple[str, SlurmJob]]:
    """Each record and its job, which is taken from ``known`` where the record is there already."""
    for record in out.split(RECORD):
        if (before := known.get(record)) is not None:
            yield record, before
            continue
        texts = record.removeprefix("\n").split(UNIT, len(FIELDS) - 1)
        if texts == [""]:
            continue
        if len(texts) != len(FIELDS) or not texts[0].isdigit():
            _log.warning("squeue: a record with %d of %d fields is left out: %r", len(texts), len(FIELDS), record[:200])
            continue
        yield record, _job(dict(zip(FIELDS, texts, strict=True)))


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
