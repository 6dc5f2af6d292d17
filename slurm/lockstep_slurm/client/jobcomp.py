"""The job-completion file (JobCompType=jobcomp/filetxt): what it says of jobs, where there is no accounting."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import SlurmJob

# One line per end of a job (22.05): a requeue leaves one too, with the state PENDING. The keys follow each other in
# this order, and only the name is a person's text; it may hold blanks. So may a group's name ("domain users"), but no
# "=", so that what a job is called is never read as its group.
_LINE = re.compile(
    r"^JobId=(?P<id>\d+) UserId=(?P<user>[^ (]*)\((?P<uid>\d+)\) GroupId=[^=]*\(\d+\) Name=(?P<name>.*?)"
    r" JobState=(?P<state>\S+) Partition=\S* TimeLimit=\S* StartTime=(?P<started>\S*) EndTime=(?P<ended>\S*)"
    r" NodeList=(?P<nodes>\S*) NodeCnt=.* SubmitTime=(?P<submitted>\S*) .*\bExitCode=(?P<exit>\d+:\d+)\s*$"
)


class Completions:
    """What the file says of one user's jobs. A look reads what was added since the last one, and what it asks for.

    ``user``: a name or a number. A look raises ``OSError`` where the file cannot be read. Threads may share it.
    It keeps some 300 bytes for each line of the user's.
    """

    def __init__(self, path: Path, user: str) -> None:
        self.path = path
        self._user = user
        self._marks = f"UserId={user}(".encode(), f"({user}) ".encode()
        self._lock = Lock()
        self._begin(None)

    def by_id(self, ids: Sequence[int]) -> list[SlurmJob]:
        """What the file says of these jobs, oldest first."""
        return self._look(lambda: (self._ids.get(one, ()) for one in set(ids)))

    def by_name(self, names: Sequence[str]) -> list[SlurmJob]:
        """What the file says of the jobs of exactly these names, oldest first."""
        wanted = set(names)
        told = self._look(lambda: (self._names.get(hash(name), ()) for name in wanted))
        return [job for job in told if job.name in wanted]

    def _look(self, places: Callable[[], Iterable[Sequence[int]]]) -> list[SlurmJob]:
        with self._lock, self.path.open("rb") as file:
            self._catch_up(file)
            lines = []
            for place in sorted({one for found in places() for one in found}):
                file.seek(place)
                lines.append(_text(file.readline()))
        return parse(lines, self._user)

    def _begin(self, file: tuple[int, int] | None) -> None:
        """Nothing is known of this file, given by device and inode."""
        self._file = file
        self._read, self._last = 0, b""
        self._ids: dict[int, tuple[int, ...]] = {}
        self._names: dict[int, tuple[int, ...]] = {}

    def _catch_up(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        this = status.st_dev, status.st_ino
        # Rotated: it is another file, or was made empty, and may have grown past where it was since.
        file.seek(self._read - len(self._last))
        if this != self._file or file.read(len(self._last)) != self._last:
            self._begin(this)
        file.seek(self._read)
        for line in file:
            if not line.endswith(b"\n"):
                break  # the last line may still be on its way
            match = _LINE.match(_text(line)) if any(mark in line for mark in self._marks) else None
            if match is not None and self._user in (match["user"], match["uid"]):
                for index, key in ((self._ids, int(match["id"])), (self._names, hash(match["name"]))):
                    index[key] = (*index.get(key, ()), self._read)
            self._read, self._last = self._read + len(line), line


def _text(line: bytes) -> str:
    # As the commands' output is: a job's name must be the same from both.
    return line.decode("utf-8", "backslashreplace")


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
