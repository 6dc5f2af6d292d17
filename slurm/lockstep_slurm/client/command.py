"""``CommandClient``: Slurm through its own commands, one process per question."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lockstep_slurm.client import sbatch, scancel, scontrol, squeue
from lockstep_slurm.client.protocol import SlurmForecast, SlurmJob, SlurmNode, SlurmPartition, Submission
from lockstep_slurm.client.records import Records, unless_queued
from lockstep_slurm.client.runner import Runner


class CommandClient:
    """A ``SlurmClient`` that runs ``sbatch``, ``squeue``, ``scontrol``, ``scancel`` and ``sacct``.

    ``slurm_conf``: the cluster's slurm.conf (default: SLURM_CONF, or where Slurm looks by itself); ``user``: whose jobs
    (default: this process's user); ``timeout``: seconds that one command may take. Threads may share a client.
    """

    kind = "command"

    def __init__(self, slurm_conf: Path | None = None, user: str | None = None, timeout: float = 30) -> None:
        self._runner = Runner(slurm_conf, timeout)
        self._user = user if user is not None else str(os.geteuid())
        self._queue = squeue.Queue(self._runner, self._user)
        self._records = Records(self._runner, self._user)

    def submit(self, submission: Submission) -> int:
        """Submits once and returns the Slurm job id. After ``SlurmUnavailableError`` the job may or may not exist."""
        return sbatch.submit(self._runner, submission)

    def test(self, script: str, name: str) -> SlurmForecast:
        """When and where such a job would start: one ``sbatch --test-only``."""
        return sbatch.test(self._runner, script, name)

    def queue(self) -> list[SlurmJob]:
        """This user's jobs in the queue: one ``squeue``."""
        return self._queue.jobs()

    def find(self, *names: str) -> list[SlurmJob]:
        """This user's jobs of exactly these names: those in the queue, and those that only a record knows."""
        if not names:
            return []
        wanted = set(names)
        queued = [job for job in squeue.jobs(self._runner, self._user, names) if job.name in wanted]
        return unless_queued(self._records.by_name(names), queued) + queued

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        """What accounting, or else the completion file, says of these jobs, oldest first."""
        return self._records.by_id(ids)

    def cancel(self, job_id: int) -> None:
        """Cancels a job; one that has ended already is left as it is."""
        scancel.cancel(self._runner, job_id)

    def hold(self, job_id: int) -> None:
        """Keeps a pending job from starting: a user's hold, which its owner may release even where root held it."""
        scontrol.change(self._runner, "uhold", job_id)

    def release(self, job_id: int) -> None:
        """Lets a held job start."""
        scontrol.change(self._runner, "release", job_id)

    def requeue(self, job_id: int) -> None:
        """Puts a running job back into the queue; Slurm starts it again after about two minutes (22.05)."""
        scontrol.change(self._runner, "requeue", job_id)

    def nodes(self) -> list[SlurmNode]:
        """Every node."""
        return scontrol.nodes(self._runner)

    def partitions(self) -> list[SlurmPartition]:
        """Every partition."""
        return scontrol.partitions(self._runner)

    def ping(self) -> None:
        """Returns if the controller answers."""
        scontrol.ping(self._runner)

    def message_timeout(self) -> float | None:
        """Slurm's MessageTimeout in seconds."""
        return self._records.message_timeout()
