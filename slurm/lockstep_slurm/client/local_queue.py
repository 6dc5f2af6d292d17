"""The local queue: who is next, who runs, who has ended. Any process that looks at it moves it on (no daemon)."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import lockstep_slurm
from lockstep_slurm.client import local_files as files
from lockstep_slurm.client.protocol import SlurmJob

_log = logging.getLogger(__name__)

KEEP = 300.0
"""Seconds that an ended job stays in the queue: Slurm's default MinJobAge."""
_START_DEADLINE = 10.0


@dataclass(frozen=True)
class LocalQueue:
    """A first-in, first-out queue in ``folder``, of which ``slots`` jobs run at a time."""

    folder: Path
    slots: int

    def advance(self) -> None:
        """Starts what can start, and puts away what ended a while ago."""
        with files.locked(self.folder):
            self.advance_locked()

    def advance_locked(self) -> None:
        """The same, for a caller that holds the lock."""
        jobs = files.read_all(self.folder / "queue")
        free = self.slots - sum(len(one.alive) for one in jobs)
        for one in jobs:
            _write_off(one)
            if free > 0 and is_ready(one):
                self._start(one)
                free -= 1
            elif (ended := ended_at(one)) is not None and time.time() - ended > KEEP:
                (self.folder / "ended").mkdir(mode=0o700, exist_ok=True)
                one.folder.rename(self.folder / "ended" / one.folder.name)

    def _start(self, one: files.Files) -> None:
        """Starts a supervisor and returns when it has claimed the run; a second one for the same run starts nothing."""
        argv = [sys.executable, "-P", "-m", "lockstep_slurm.client.local_supervisor"]
        argv += [str(self.folder), str(self.slots), str(one.job.id), str(one.job.restarts)]
        package = Path(lockstep_slurm.__file__).parent.parent
        with (self.folder / "supervisor.log").open("ab") as log:
            try:
                # The supervisor's environment is the job's own: nothing of this process could leak through it.
                subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=one.job.environment | {"PYTHONPATH": str(package)},
                    timeout=_START_DEADLINE,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                # The job stays pending, and the next look tries again.
                _log.warning("the supervisor of local job %d did not start: %s; see %s", one.job.id, error, log.name)


def is_ready(one: files.Files) -> bool:
    """Whether the job only waits for a slot; a requeued one waits for the end of its earlier run as well."""
    job = one.job
    return not job.held and job.cancelled is None and job.restarts not in one.runs and not one.alive


def ended_at(one: files.Files) -> float | None:
    """When the job ended (seconds since the epoch), or None if it has not."""
    number = one.job.restarts
    if number in one.ends:
        return one.ends[number].ended
    return None if number in one.runs else one.job.cancelled


def _write_off(one: files.Files) -> None:
    """Says of runs that are gone without a word (killed with their supervisor, or the machine was restarted) so."""
    for number in set(one.runs) - set(one.ends) - one.alive:
        lost = files.End(time.time(), message="its supervisor was killed, or the machine was started again")
        files.claim(one.folder / f"end-{number}.json", asdict(lost))


def describe(one: files.Files, restart: int | None = None) -> SlurmJob:
    """One run of the job (default: the present one) in Slurm's words."""
    number = one.job.restarts if restart is None else restart
    run, end = one.runs.get(number), one.ends.get(number)
    state, reason = _state(one, number)
    ending = number in one.alive and one.job.cancelled is not None
    ended = end.ended if end is not None else (one.job.cancelled if state == "CANCELLED" else None)
    known = end if state != "PENDING" else None
    return SlurmJob(
        id=one.job.id,
        name=one.job.name,
        state=state,
        # A cancelled or requeued job whose processes are still on their way out.
        flags=("COMPLETING",) if ending or (one.alive and number not in one.alive) else (),
        reason=reason,
        nodes=(this_node(),) if run is not None else (),
        restarts=number,
        exit_code=None if known is None else known.code,
        exit_signal=None if known is None else known.signal,
        submitted=_time(one.job.submitted),
        started=None if run is None else _time(run.started),
        ended=None if ended is None else _time(ended),
    )


def _state(one: files.Files, number: int) -> tuple[str, str | None]:
    """State and reason of one run."""
    job, end = one.job, one.ends.get(number)
    if number in job.requeued:
        return "PENDING", "requeued"
    if number in one.alive:
        return "RUNNING", None
    if job.cancelled is not None and number == job.restarts:
        return "CANCELLED", None
    if number not in one.runs:
        return "PENDING", "JobHeldUser" if job.held else "Resources"
    return _outcome(end)


def _outcome(end: files.End | None) -> tuple[str, str | None]:
    """State and reason of a run that is over."""
    if end is None or (end.code is None and end.signal is None):
        return "NODE_FAIL", None if end is None else end.message
    if end.code == 0:
        return "COMPLETED", None
    return "FAILED", end.message or ("NonZeroExitCode" if end.code is not None else None)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def this_node() -> str:
    """This machine's short name, as Slurm would call its node."""
    return os.uname().nodename.partition(".")[0]
