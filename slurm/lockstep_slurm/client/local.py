"""``LocalClient``: no Slurm; the same script with plain ``bash`` on this machine, in a queue of Lockstep's own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from lockstep_slurm.client import local_files as files
from lockstep_slurm.client import processes
from lockstep_slurm.client.local_queue import LocalQueue, describe, ended_at, is_ready, this_node
from lockstep_slurm.client.machine import shape
from lockstep_slurm.client.protocol import (
    SlurmForecast,
    SlurmJob,
    SlurmNode,
    SlurmPartition,
    SlurmRefusedError,
    SlurmUnknownJobError,
    Submission,
)
from lockstep_slurm.client.runner import clean_environment
from lockstep_slurm.client.sbatch import check_folders

PARTITION = "local"


class LocalClient:
    """A ``SlurmClient`` whose jobs run on this machine, one at a time unless ``slots`` says more.

    All state is in ``folder``; several clients, threads and processes may share it, and a job outlives them all. What
    a script's header asks of Slurm (partition, time limit, begin, memory) is not read; a job has the whole machine.
    """

    kind = "local"

    def __init__(self, folder: Path, slots: int = 1) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}; at least one job must be able to run")
        self._folder = folder.absolute()
        self._queue = LocalQueue(self._folder, slots)

    def submit(self, submission: Submission) -> int:
        """Puts the script into the queue, starts it if a slot is free, and returns its id."""
        check_folders(submission)
        script = _script(submission.script)
        environment = clean_environment()
        # A job here must not find a cluster that it is not in.
        environment.pop("SLURM_CONF", None)
        with files.locked(self._folder):
            number = files.next_id(self._folder)
            job = files.Job(
                id=number,
                name=submission.name,
                arguments=tuple(submission.arguments),
                directory=str(submission.directory),
                output=str(submission.output.with_name(_expand(submission.output.name, number))),
                environment=environment,
                submitted=time.time(),
                held=submission.hold,
                umask=submission.umask,
            )
            making = self._folder / f".{number}"
            making.mkdir(mode=0o700)
            (making / "script").write_bytes(script)
            files.write(making / "job.json", asdict(job))
            (self._folder / "queue").mkdir(mode=0o700, exist_ok=True)
            making.rename(self._folder / "queue" / str(number))
            self._queue.advance_locked()
        return number

    def test(self, script: str, name: str) -> SlurmForecast:  # noqa: ARG002 - a name is refused by nobody here
        """Whether it would be taken, and at once if a slot is free; when another job ends nobody knows."""
        _checked(script.encode("utf-8"), "it")
        self._queue.advance()
        jobs = files.read_all(self._folder / "queue")
        ahead = sum(is_ready(one) for one in jobs)
        free = self._queue.slots - sum(len(one.alive) for one in jobs) - ahead
        behind = f", behind {ahead} other job{'' if ahead == 1 else 's'}" if ahead else ""
        words = "It would start at once" if free > 0 else f"It would wait until a slot is free{behind}"
        return SlurmForecast(
            words=words,
            start=datetime.now(UTC) if free > 0 else None,
            nodes=(this_node(),),
            processors=shape().cpus,
            partition=PARTITION,
        )

    def queue(self) -> list[SlurmJob]:
        """All jobs that have not ended, and those that ended in the last five minutes."""
        self._queue.advance()
        return [describe(one) for one in files.read_all(self._folder / "queue")]

    def find(self, *names: str) -> list[SlurmJob]:
        """The jobs of exactly these names, the ended ones included."""
        self._queue.advance()
        wanted = set(names)
        # The queue first: a job that is put away in between is seen twice, and never missed.
        queued = {one.job.id: one for one in files.read_all(self._folder / "queue") if one.job.name in wanted}
        ended = {one.job.id: one for one in files.read_all(self._folder / "ended") if one.job.name in wanted}
        return [describe(one) for _, one in sorted((queued | ended).items())]

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        """How the runs of these jobs ended; the run that a requeue ended has the state PENDING, as Slurm's record."""
        records = []
        for job_id in sorted(set(ids)):
            one = self._read(job_id)
            if one is not None:
                past = [number for number in sorted(one.ends) if number < one.job.restarts]
                records += [describe(one, number) for number in past]
                records += [describe(one)] if ended_at(one) is not None else []
        return records

    def cancel(self, job_id: int) -> None:
        """Cancels a job: SIGTERM to all its processes, SIGKILL after five seconds."""
        with files.locked(self._folder):
            one = self._known(job_id)
            if ended_at(one) is None and one.job.cancelled is None:
                one = one.with_job(cancelled=time.time())
            _end(one)
            self._queue.advance_locked()

    def hold(self, job_id: int) -> None:
        """Keeps a pending job from starting."""
        with files.locked(self._folder):
            self._pending(job_id, "held").with_job(held=True)

    def release(self, job_id: int) -> None:
        """Lets a held job start."""
        with files.locked(self._folder):
            self._pending(job_id, "released").with_job(held=False)
            self._queue.advance_locked()

    def requeue(self, job_id: int) -> None:
        """Ends a running job as ``cancel`` does and puts it back into the queue; an ended one is put back too."""
        with files.locked(self._folder):
            one = self._known(job_id)
            number = one.job.restarts
            if number not in one.runs:
                raise SlurmRefusedError(f"local job {job_id} has not started; there is nothing to requeue")
            if one.job.cancelled is not None:
                raise SlurmRefusedError(f"local job {job_id} was cancelled; submit it again")
            ended_by_this = () if ended_at(one) is not None else (number,)
            _end(one.with_job(restarts=number + 1, requeued=one.job.requeued + ended_by_this))
            self._queue.advance_locked()

    def nodes(self) -> list[SlurmNode]:
        """This machine as one node."""
        self._queue.advance()
        busy = sum(len(one.alive) for one in files.read_all(self._folder / "queue"))
        state = "IDLE" if busy == 0 else "ALLOCATED" if busy >= self._queue.slots else "MIXED"
        machine = shape()
        return [
            SlurmNode(
                name=this_node(),
                state=state,
                cpus=machine.cpus,
                sockets=machine.sockets,
                cores_per_socket=machine.cores_per_socket,
                threads_per_core=machine.threads_per_core,
                memory=machine.memory,
                partitions=(PARTITION,),
            )
        ]

    def partitions(self) -> list[SlurmPartition]:
        """One partition, ``local``."""
        return [SlurmPartition(name=PARTITION, state="UP", nodes=(this_node(),), default=True)]

    def ping(self) -> None:
        """Returns if the queue's folder can be used; ``SlurmUnavailableError`` if its lock cannot be had."""
        with files.locked(self._folder):
            os.utime(self._folder / "lock")

    def message_timeout(self) -> float | None:
        """None: what was asked of this queue is done, or not, when the call is over."""
        return None

    def _read(self, job_id: int) -> files.Files | None:
        # From the queue to the ended ones is the only way that a folder goes.
        return files.read(self._folder / "queue" / str(job_id)) or files.read(self._folder / "ended" / str(job_id))

    def _known(self, job_id: int) -> files.Files:
        one = self._read(job_id)
        if one is None:
            raise SlurmUnknownJobError(f"there is no local job {job_id} in {self._folder}")
        return one

    def _pending(self, job_id: int, verb: str) -> files.Files:
        one = self._known(job_id)
        if ended_at(one) is not None:
            raise SlurmRefusedError(f"local job {job_id} has ended; it cannot be {verb}")
        if one.job.restarts in one.runs:
            raise SlurmRefusedError(f"local job {job_id} is running; only a pending job can be {verb}")
        return one


def _script(path: Path) -> bytes:
    try:
        script = path.read_bytes()
    except OSError as error:
        raise SlurmRefusedError(f"the script {path} cannot be read: {error.strerror}") from error
    return _checked(script, str(path))


def _checked(script: bytes, what: str) -> bytes:
    """The script, if it is one to sbatch as well."""
    if not script.startswith(b"#!"):
        raise SlurmRefusedError(f"{what} is no batch script: its first line does not start with '#!'")
    if b"\0" in script or b"\r\n" in script:
        raise SlurmRefusedError(f"{what} is no batch script: it has zero bytes or DOS line ends")
    return script


def _expand(pattern: str, job_id: int) -> str:
    """An output's name with sbatch's ``%j`` and ``%%`` filled in."""
    return "%".join(part.replace("%j", str(job_id)) for part in pattern.split("%%"))


def _end(one: files.Files) -> None:
    """Ends what still runs of the job: through its supervisor, or by force where that has died."""
    for number in one.alive:
        run = one.runs[number]
        if not processes.send(run.supervisor, signal.SIGTERM) and run.leader is not None:
            processes.send_all(processes.members(run.leader), signal.SIGKILL)
