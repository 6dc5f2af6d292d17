"""``SlurmClient``: what Lockstep asks of a scheduler, and the values it gets back; every client answers alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from lockstep_slurm.errors import LockstepError


class SlurmError(LockstepError):
    """Slurm could not do what it was asked; the message has Slurm's own words."""


class SlurmUnavailableError(SlurmError):
    """No answer could be had (controller down, time-out): nothing is known, and a submit may still happen later."""


class SlurmRateLimitedError(SlurmUnavailableError):
    """Slurm is asked too often, and has done nothing of this: unlike after silence, nothing may still happen."""


class SlurmRefusedError(SlurmError):
    """Slurm answered, and the answer was no: nothing was submitted or changed.

    Slurm 22.05 may give an id even to a job that it refuses, and list it as FAILED, BadConstraints, for a while.
    """


class SlurmUnknownJobError(SlurmError):
    """Slurm answered that it does not know this job (any more)."""


@dataclass(frozen=True)
class Submission:
    """What a client needs to submit a script. Paths are absolute and seen by the compute nodes."""

    script: Path
    """The batch script; its ``#SBATCH`` header carries the resources."""
    name: str
    """The Slurm job's name, ``job.identity.slurm_name``: the tag by which the job is found again."""
    output: Path
    """Where the batch script's standard output and error go; its folder exists. In the last part of the path ``%j`` is
    the job's id and ``%%`` a percent sign, as with sbatch; the folder's name is taken as it is."""
    directory: Path
    """The working folder of the job; it exists."""
    arguments: Sequence[str] = ()
    """The script's own arguments (the run directory)."""
    hold: bool = False
    """Submit held: it stays pending until released."""
    umask: int | None = None
    """Of the job; None: this process's."""


@dataclass(frozen=True)
class SlurmJob:
    """One job as Slurm tells it. Times are UTC, or None where Slurm says none."""

    id: int
    name: str
    state: str
    """Slurm's base state, verbatim: PENDING, RUNNING, COMPLETED, ...; where Slurm tells only a flag that goes with
    several bases (COMPLETING, STAGE_OUT, REVOKED), that word, which is then among the flags as well."""
    flags: tuple[str, ...] = ()
    """State flags, verbatim: COMPLETING, REQUEUED, ..."""
    reason: str | None = None
    """Why it is pending, or what Slurm says of its end; None where Slurm says "None"."""
    nodes: tuple[str, ...] = ()
    restarts: int = 0
    exit_code: int | None = None
    """The batch script's, once the job has ended; None before, and where a signal ended it. It says nothing where the
    state says that Slurm ended the job (CANCELLED, PREEMPTED, NODE_FAIL): there Slurm may write 0."""
    exit_signal: int | None = None
    submitted: datetime | None = None
    started: datetime | None = None
    """Start, or for a pending job Slurm's estimate."""
    ended: datetime | None = None
    """End; None before it, whatever limit Slurm gives instead."""


@dataclass(frozen=True)
class SlurmForecast:
    """What Slurm says of a script that it was only asked about: as things stand now, and no promise."""

    words: str
    """Slurm's own, on one line."""
    start: datetime | None = None
    """When it would start, in UTC; None where that is not told."""
    nodes: tuple[str, ...] = ()
    """Where it would run."""
    processors: int | None = None
    """How many it would be given, over all nodes."""
    partition: str | None = None


@dataclass(frozen=True)
class SlurmNode:
    """One node as Slurm tells it. Memory in MiB."""

    name: str
    state: str
    flags: tuple[str, ...] = ()
    cpus: int = 0
    """CPUs that jobs can have: the node's, less those that CpuSpecList keeps."""
    sockets: int = 1
    cores_per_socket: int = 1
    threads_per_core: int = 1
    memory: int = 0
    partitions: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class SlurmPartition:
    """One partition as Slurm tells it."""

    name: str
    state: str
    nodes: tuple[str, ...] = ()
    default: bool = False
    time_limit: str | None = None
    """The longest that a job may ask for, in Slurm's form; None where there is no limit."""


@dataclass(frozen=True)
class ClusterAnswer:
    """What one look at the cluster's nodes said, for checking a spec before it is stored."""

    nodes: tuple[SlurmNode, ...] = ()
    partitions: tuple[SlurmPartition, ...] = field(default=())


class SlurmClient(Protocol):
    """What Lockstep asks of a scheduler.

    Every method raises ``SlurmUnavailableError`` when no answer could be had within the client's deadline, and
    ``SlurmRefusedError`` with Slurm's own words when the answer was no. None of them retries: that is the caller's.
    """

    kind: str
    """``command``, ``pyslurm`` or ``local``."""

    def submit(self, submission: Submission) -> int:
        """Submits once and returns the Slurm job id. After ``SlurmUnavailableError`` the job may or may not exist."""

    def test(self, script: str, name: str) -> SlurmForecast:
        """When and where a job of this name with this text as its script would start; nothing is submitted or kept.

        ``SlurmRefusedError`` with Slurm's own words where it would not be taken. Each call makes the controller go
        through its whole queue (``sbatch --test-only``), so ask rarely.
        """

    def queue(self) -> list[SlurmJob]:
        """One bulk query: this user's jobs that Slurm still has in its queue (pending, running, recently ended)."""

    def find(self, *names: str) -> list[SlurmJob]:
        """This user's jobs of exactly these names, in the queue or in the completion records: one look for them all."""

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        """What the completion or accounting records say of these jobs, oldest first; one without a record is left out.

        Ids are reused: a caller compares the name as well, and jobs of one id differ in their submit times. A job has
        one record for each run, and its last one counts: before it, a run that a requeue ended has a state that is not
        an end (in the completion file PENDING), but a preempted one PREEMPTED, and one whose node failed NODE_FAIL.
        """

    def cancel(self, job_id: int) -> None:
        """Cancels a job; one that has ended already is left as it is. ``SlurmUnknownJobError`` if there is none."""

    def hold(self, job_id: int) -> None:
        """Keeps a pending job from starting."""

    def release(self, job_id: int) -> None:
        """Lets a held job start."""

    def requeue(self, job_id: int) -> None:
        """Puts a running job back into the queue: the same Slurm job id, one restart more."""

    def nodes(self) -> list[SlurmNode]:
        """Every node."""

    def partitions(self) -> list[SlurmPartition]:
        """Every partition."""

    def ping(self) -> None:
        """Returns if the controller answers."""

    def message_timeout(self) -> float | None:
        """Seconds that Slurm's parts wait for each other (MessageTimeout), asked for once; None where it is untold."""
