"""``CommandClient``: Slurm through its own commands, one process per question."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lockstep_slurm.client import jobcomp, sacct, sbatch, scancel, scontrol, squeue
from lockstep_slurm.client.protocol import SlurmJob, SlurmNode, SlurmPartition, SlurmUnavailableError, Submission
from lockstep_slurm.client.runner import Runner

_log = logging.getLogger(__name__)


class CommandClient:
    """A ``SlurmClient`` that runs ``sbatch``, ``squeue``, ``scontrol``, ``scancel`` and ``sacct``.

    ``slurm_conf``: the cluster's slurm.conf (default: SLURM_CONF, or where Slurm looks by itself); ``user``: whose jobs
    (default: this process's user); ``timeout``: seconds that one command may take. Threads may share a client.
    """

    kind = "command"

    def __init__(self, slurm_conf: Path | None = None, user: str | None = None, timeout: float = 30) -> None:
        self._runner = Runner(slurm_conf, timeout)
        self._user = user if user is not None else str(os.geteuid())
        self._configuration: dict[str, str] | None = None

    def submit(self, submission: Submission) -> int:
        """Submits once and returns the Slurm job id. After ``SlurmUnavailableError`` the job may or may not exist."""
        return sbatch.submit(self._runner, submission)

    def queue(self) -> list[SlurmJob]:
        """This user's jobs in the queue: one ``squeue``."""
        return squeue.jobs(self._runner, self._user)

    def find(self, name: str) -> list[SlurmJob]:
        """This user's jobs of exactly this name: those in the queue, and those that only a record knows."""
        # squeue takes a list of names, parted by commas.
        found = squeue.jobs(self._runner, self._user, None if "," in name else name)
        queued = [job for job in found if job.name == name]
        ids = {job.id for job in queued}
        return [job for job in self._records_of_name(name) if job.id not in ids] + queued

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        """What accounting, or else the completion file, says of these jobs, oldest first."""
        if not ids:
            return []
        if self._has_accounting():
            return sacct.by_id(self._runner, self._user, ids)
        with self._completion_file() as path:
            return [] if path is None else jobcomp.by_id(path, self._user, ids)

    def cancel(self, job_id: int) -> None:
        """Cancels a job; one that has ended already is left as it is."""
        scancel.cancel(self._runner, job_id)

    def hold(self, job_id: int) -> None:
        """Keeps a pending job from starting."""
        scontrol.change(self._runner, "hold", job_id)

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

    def _records_of_name(self, name: str) -> list[SlurmJob]:
        if self._has_accounting():
            return sacct.by_name(self._runner, self._user, name)
        with self._completion_file() as path:
            return [] if path is None else jobcomp.by_name(path, self._user, name)

    def _has_accounting(self) -> bool:
        return self._settings().get("AccountingStorageType", "").strip() == "accounting_storage/slurmdbd"

    @contextmanager
    def _completion_file(self) -> Iterator[Path | None]:
        """The completion file to read from, or None where the cluster writes none that can be seen on this machine."""
        settings = self._settings()
        path = Path(settings.get("JobCompLoc", "").strip())
        # Before the first job ends there is no file; on a login node there is none at all.
        known = settings.get("JobCompType", "").strip() == "jobcomp/filetxt" and path.exists()
        if known and not os.access(path, os.R_OK):
            _log.warning(
                "the completion records in %s are not readable here: ended jobs are known from the queue", path
            )
            known = False
        try:
            yield path if known else None
        except OSError as error:
            raise SlurmUnavailableError(f"the completion records in {path} could not be read: {error}") from error

    def _settings(self) -> dict[str, str]:
        """The controller's configuration, asked for once."""
        if self._configuration is None:
            self._configuration = scontrol.configuration(self._runner)
        return self._configuration
