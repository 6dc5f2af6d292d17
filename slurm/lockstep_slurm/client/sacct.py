"""``sacct``: what the accounting database says of jobs, where a cluster has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import SlurmJob
from lockstep_slurm.client.runner import Runner
from lockstep_slurm.client.squeue import EPOCH, UNIT, only_named

FIELDS = ("JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "NodeList", "JobName")
_MOST_IDS = 8000
"""In one question: Linux takes no argument of 128 KiB or more."""
FIND_SINCE = "now-30days"
"""How far back a look-up by name goes: a name is looked up soon after a submit whose answer was lost."""


def by_id(runner: Runner, user: str, ids: Sequence[int]) -> list[SlurmJob]:
    """What accounting says of these jobs, every restart of its own, oldest first."""
    pieces = [ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS)]
    return [job for some in pieces for job in _ask(runner, user, [f"--jobs={','.join(str(one) for one in some)}"])]


def by_name(runner: Runner, user: str, names: Sequence[str]) -> list[SlurmJob]:
    """What accounting says of the jobs of exactly these names in the last 30 days, oldest first."""
    wanted = set(names)
    told = _ask(runner, user, [*only_named(names), f"--starttime={FIND_SINCE}"])
    return [job for job in told if job.name in wanted]


def _ask(runner: Runner, user: str, selection: list[str]) -> list[SlurmJob]:
    argv = ["sacct", "--noheader", "--allocations", "--duplicates", f"--user={user}", *selection]
    argv += ["--parsable2", f"--delimiter={UNIT}", f"--format={','.join(FIELDS)}"]
    return parse(runner.ask(argv, extra=EPOCH))


def parse(out: str) -> list[SlurmJob]:
    """The jobs of sacct's answer, oldest first.

    22.05 does not print restarts: they are counted, per job and name. Its exit codes from 128 up are less 128, and
    a job that ended within seconds is named "allocation" until the record of its start has arrived.
    """
    rows = []
    for line in out.split("\n"):
        texts = line.split(UNIT)
        if len(texts) == len(FIELDS) and texts[0].isdigit():
            rows.append(dict(zip(FIELDS, texts, strict=True)))
    rows.sort(key=lambda row: int(row["Submit"]) if row["Submit"].isdigit() else 0)
    earlier: Counter[tuple[str, str]] = Counter()
    found = []
    for row in rows:
        key = (row["JobIDRaw"], row["JobName"])
        found.append(_job(row, earlier[key]))
        earlier[key] += 1
    return found


def _job(row: dict[str, str], restarts: int) -> SlurmJob:
    state, flags = values.job_state(row["State"])
    ended = values.has_ended(state)
    code, number = values.code_and_signal(row["ExitCode"]) if ended else (None, None)
    return SlurmJob(
        id=int(row["JobIDRaw"]),
        name=row["JobName"],
        state=state,
        flags=flags,
        nodes=values.host_names(row["NodeList"]),
        restarts=restarts,
        exit_code=code,
        exit_signal=number,
        submitted=values.epoch(row["Submit"]),
        started=values.epoch(row["Start"]),
        ended=values.epoch(row["End"]) if ended else None,
    )
