"""``Records``: what a cluster says of jobs that its controller may have forgotten, from accounting or a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lockstep_slurm.client import jobcomp, sacct, scontrol, values
from lockstep_slurm.client.protocol import SlurmJob, SlurmUnavailableError
from lockstep_slurm.client.runner import Runner

_log = logging.getLogger(__name__)


def unless_queued(records: Sequence[SlurmJob], queued: Iterable[SlurmJob]) -> list[SlurmJob]:
    """The records of jobs that are not in the queue: an id that was given out again is, under another name."""
    there = {(job.id, job.name) for job in queued}
    return [record for record in records if (record.id, record.name) not in there]


class Records:
    """One user's records: ``sacct`` where accounting is slurmdbd, else the completion file, else none."""

    def __init__(self, runner: Runner, user: str) -> None:
        self._runner = runner
        self._user = user
        self._configuration: dict[str, str] | None = None
        self._completions: jobcomp.Completions | None = None

    def by_id(self, ids: Sequence[int]) -> list[SlurmJob]:
        """What is known of these jobs, oldest first."""
        if not ids:
            return []
        if self._has_accounting():
            return sacct.by_id(self._runner, self._user, ids)
        with self._completion_file() as completions:
            return [] if completions is None else completions.by_id(ids)

    def by_name(self, names: Sequence[str]) -> list[SlurmJob]:
        """What is known of the jobs of exactly these names, oldest first."""
        if self._has_accounting():
            return sacct.by_name(self._runner, self._user, names)
        with self._completion_file() as completions:
            return [] if completions is None else completions.by_name(names)

    def settings(self) -> dict[str, str]:
        """The controller's configuration, asked for once."""
        if self._configuration is None:
            self._configuration = scontrol.configuration(self._runner)
        return self._configuration

    def message_timeout(self) -> float | None:
        """MessageTimeout in seconds; None where the configuration does not tell it."""
        return values.seconds(self.settings().get("MessageTimeout", ""))

    def _has_accounting(self) -> bool:
        return self.settings().get("AccountingStorageType", "").strip() == "accounting_storage/slurmdbd"

    @contextmanager
    def _completion_file(self) -> Iterator[jobcomp.Completions | None]:
        """The completion file to read from, or None where the cluster writes none that can be seen on this machine."""
        settings = self.settings()
        path = Path(settings.get("JobCompLoc", "").strip())
        # Before the first job ends there is no file; on a login node there is none at all.
        known = settings.get("JobCompType", "").strip() == "jobcomp/filetxt" and path.exists()
        if known and not os.access(path, os.R_OK):
            _log.warning(
                "the completion records in %s are not readable here: ended jobs are known from the queue", path
            )
            known = False
        try:
            yield self._completions_in(path) if known else None
        except OSError as error:
            raise SlurmUnavailableError(f"the completion records in {path} could not be read: {error}") from error

    def _completions_in(self, path: Path) -> jobcomp.Completions:
        if self._completions is None or self._completions.path != path:
            self._completions = jobcomp.Completions(path, self._user)
        return self._completions
