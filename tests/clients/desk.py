"""A client with a folder of its own to submit from, and waiting with a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lockstep_slurm.client.protocol import SlurmClient, SlurmJob, SlurmUnknownJobError, Submission
from lockstep_slurm.client.values import JOB_ENDS
from lockstep_slurm.job.identity import new_job_id, slurm_name

T = TypeVar("T")
WITHIN = 60.0
"""Seconds: far more than anything here takes on a quiet machine."""


def until(look: Callable[[], T | None], what: str, within: float = WITHIN) -> T:
    """The first answer that is neither None nor False; an AssertionError after ``within`` seconds."""
    end = time.monotonic() + within
    while True:
        answer = look()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.05)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process is stopped (SIGSTOP) meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Desk:
    """Submits to one client, and knows what it submitted."""

    client: SlurmClient
    folder: Path
    slurm_conf: Path | None = None
    submitted: list[int] = field(default_factory=list)

    @property
    def is_slurm(self) -> bool:
        return self.slurm_conf is not None

    def submission(
        self,
        body: str = "true",
        *,
        name: str | None = None,
        arguments: tuple[str, ...] = (),
        hold: bool = False,
        header: str = "",
        output: str = "job-%j.log",
    ) -> Submission:
        """A script with this body. ``name`` defaults to one that no other job has."""
        name = name or slurm_name("contract", new_job_id())
        script = self.folder / f"{name}.sbatch"
        script.write_text(f"#!/bin/bash\n#SBATCH --export=NONE\n#SBATCH --ntasks=1\n{header}\n{body}\n")
        return Submission(script, name, self.folder / output, self.folder, arguments, hold)

    def submit(self, submission: Submission) -> int:
        number = self.client.submit(submission)
        self.submitted.append(number)
        return number

    def run(self, body: str = "true", **options: object) -> int:
        return self.submit(self.submission(body, **options))  # type: ignore[arg-type]

    def job(self, number: int) -> SlurmJob | None:
        return next((job for job in self.client.queue() if job.id == number), None)

    def in_state(self, number: int, *states: str) -> SlurmJob:
        """The job, as soon as it is in one of these states; fails at once if it ended in another."""

        def look() -> SlurmJob | None:
            job = self.job(number)
            if job is None or job.state in states:
                return job
            assert job.state not in JOB_ENDS, f"{job} instead of {states}"
            return None

        return until(look, f"job {number} in state {states}: {self.job(number)}")

    def ended(self, number: int) -> SlurmJob:
        return self.in_state(number, *JOB_ENDS)

    def record(self, number: int) -> SlurmJob:
        """The newest completion record, which may be written a moment after the queue says that it ended."""

        def look() -> SlurmJob | None:
            job = self.job(number)
            records = [
                one
                for one in self.client.finished([number])
                if one.state in JOB_ENDS and (job is None or one.name == job.name)
            ]
            return records[-1] if records else None

        return until(look, f"a completion record of job {number}")

    def lines(self, number: int, output: str = "job-%j.log") -> list[str]:
        """The lines of the job's output; the file may appear a moment after the start."""
        path = self.folder / output.replace("%j", str(number))
        until(path.exists, f"the output {path}")
        return path.read_text().splitlines()

    def slurm(self, *command: str) -> str:
        """What one of Slurm's own commands prints, past the client."""
        environment = os.environ | {"SLURM_CONF": str(self.slurm_conf)}
        return subprocess.run(command, env=environment, check=True, timeout=30, capture_output=True, text=True).stdout

    def scontrol(self, *arguments: str) -> str:
        """What Slurm's own scontrol prints, past the client."""
        return self.slurm("scontrol", *arguments)

    def clear(self) -> None:
        """Cancels what is left, and waits until nothing of it is there."""
        for number in self.submitted:
            try:
                self.client.cancel(number)
            except SlurmUnknownJobError:
                continue
        until(self._is_clear, f"the end of all of {self.submitted}")

    def _is_clear(self) -> bool:
        mine = [job for job in self.client.queue() if job.id in self.submitted]
        return all(job.state in JOB_ENDS for job in mine)
