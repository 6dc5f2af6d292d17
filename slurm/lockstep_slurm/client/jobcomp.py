"""The job-completion file (JobCompType=jobcomp/filetxt): what it says of jobs, where there is no accounting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import SlurmJob

# One line per end of a job (22.05): a requeue leaves one too, with the state PENDING. The keys follow each other in
# this order, and only the name is a person's text; it may hold blanks.
_LINE = re.compile(
    r"^JobId=(?P<id>\d+) UserId=(?P<user>[^ (]*)\((?P<uid>\d+)\) GroupId=\S* Name=(?P<name>.*?) JobState=(?P<state>\S+)"
    r" Partition=\S* TimeLimit=\S* StartTime=(?P<started>\S*) EndTime=(?P<ended>\S*) NodeList=(?P<nodes>\S*) NodeCnt=.*"
    r" SubmitTime=(?P<submitted>\S*) .*\bExitCode=(?P<exit>\d+:\d+)\s*$"
)


def by_id(path: Path, user: str, ids: Sequence[int]) -> list[SlurmJob]:
    """What the file says of these jobs, oldest first; ``OSError`` where it cannot be read."""
    starts = {f"JobId={one}" for one in ids}
    return _read(path, user, lambda line: line[: line.find(" ")] in starts)


def by_name(path: Path, user: str, names: Sequence[str]) -> list[SlurmJob]:
    """What the file says of the jobs of exactly these names, oldest first; ``OSError`` where it cannot be read."""
    wanted = set(names)
    # As _LINE takes a name, without matching every line of every user.
    told = _read(path, user, lambda line: line.partition(" Name=")[2].partition(" JobState=")[0] in wanted)
    return [job for job in told if job.name in wanted]


def _read(path: Path, user: str, wanted: Callable[[str], bool]) -> list[SlurmJob]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        # The last line may still be on its way.
        return parse((line for line in lines if line.endswith("\n") and wanted(line)), user)


def parse(lines: Iterable[str], user: str) -> list[SlurmJob]:
    """The user's jobs of these lines, in their order; ``restarts`` counts earlier lines of the same job and name."""
    earlier: Counter[tuple[str, str]] = Counter()
    found = []
    for line in lines:
        match = _LINE.match(line)
        if match is None or user not in (match["user"], match["uid"]):
            continue
        key = (match["id"], match["name"])
        found.append(_job(match, earlier[key]))
        earlier[key] += 1
    return found


def _job(match: re.Match[str], restarts: int) -> SlurmJob:
    state, flags = values.job_state(match["state"])
    ended = values.has_ended(state)
    code, number = values.code_and_signal(match["exit"]) if ended else (None, None)
    return SlurmJob(
        id=int(match["id"]),
        name=match["name"],
        state=state,
        flags=flags,
        nodes=values.host_names(match["nodes"]),
        restarts=restarts,
        exit_code=code,
        exit_signal=number,
        submitted=values.local_time(match["submitted"]),
        started=values.local_time(match["started"]),
        ended=values.local_time(match["ended"]),
    )
