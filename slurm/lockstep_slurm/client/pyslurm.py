"""``PySlurmClient``: Slurm through pyslurm, in a process of its own, and through its commands for the rest."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lockstep_slurm.client import pyslurm_presence, sbatch, squeue, values
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmForecast,
    SlurmJob,
    SlurmNode,
    SlurmPartition,
    SlurmUnavailableError,
    Submission,
)
from lockstep_slurm.client.pyslurm_description import NoWordsError, describe
from lockstep_slurm.client.pyslurm_process import PySlurmProcess
from lockstep_slurm.client.records import Records, unless_queued
from lockstep_slurm.client.runner import Runner

_log = logging.getLogger(__name__)

_Run = tuple[int, int, datetime | None]
"""Which run of which job: ids are reused, and a requeued job runs again."""
_Exit = tuple[int | None, int | None]
"""Exit code and signal."""
# Those that slurm.conf's PropagateResourceLimits knows (man slurm.conf, 22.05).
_LIMITS = ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS")


class PySlurmClient:
    """A ``SlurmClient`` that asks pyslurm, and Slurm's commands for what pyslurm has no words for.

    Those are the completion records (``sacct``, the completion file), exit codes of jobs that ended badly (``squeue``,
    once each), scripts that ask for more than ``describe`` can say, and forecasts (``sbatch``).

    ``slurm_conf``: the cluster's slurm.conf (default: SLURM_CONF, or where Slurm looks by itself); ``user``: whose jobs
    (default: this process's user); ``timeout``: seconds that one question or command may take; ``folder``: the one that
    pyslurm is in (default: where this process would import it from). Threads may share a client: pyslurm answers one
    after another. ``SlurmError`` where there is no pyslurm, or no such user.
    """

    kind = "pyslurm"

    def __init__(
        self,
        slurm_conf: Path | None = None,
        user: str | None = None,
        timeout: float = 30,
        *,
        folder: Path | None = None,
    ) -> None:
        self.process = PySlurmProcess(folder or pyslurm_presence.needed(), slurm_conf, timeout)
        self._runner = Runner(slurm_conf, timeout)
        self._uid = _uid(user)
        self._records = Records(self._runner, str(self._uid))
        self._exits: dict[_Run, _Exit] = {}
        self._by_sbatch: set[str] = set()

    def submit(self, submission: Submission) -> int:
        """Submits once and returns the Slurm job id. After ``SlurmUnavailableError`` the job may or may not exist."""
        sbatch.check_folders(submission)
        try:
            script = submission.script.read_bytes().decode("utf-8")
            fields = describe(submission, script)
            settings = self._records.settings()
        except (NoWordsError, OSError, UnicodeDecodeError, SlurmUnavailableError) as reason:
            # A script that cannot be read or sent, sbatch refuses in its own words; and where the controller did not
            # tell its configuration, sbatch has slurm.conf's word on what belongs into the job's environment.
            if f"{reason}" not in self._by_sbatch:
                self._by_sbatch.add(f"{reason}")
                _log.info("%s is submitted with sbatch instead of pyslurm: %s", submission.script, reason)
            return sbatch.submit(self._runner, submission)
        bootstrap = "disable_slurm_hydra_bootstrap" not in settings.get("MpiParams", "")
        limits, umask = _limits(settings), submission.umask
        return int(self.process.ask("submit", fields=fields, limits=limits, bootstrap=bootstrap, umask=umask))

    def test(self, script: str, name: str) -> SlurmForecast:
        """When and where such a job would start: pyslurm has no word for it, so it is one ``sbatch --test-only``."""
        return sbatch.test(self._runner, script, name)

    def queue(self) -> list[SlurmJob]:
        """This user's jobs in the queue. pyslurm asks for all users' jobs at once and leaves out the others after."""
        return self._jobs(None)

    def find(self, *names: str) -> list[SlurmJob]:
        """This user's jobs of exactly these names: those in the queue, and those that only a record knows."""
        if not names:
            return []
        queued = self._jobs(names)
        return unless_queued(self._records.by_name(names), queued) + queued

    def finished(self, ids: Sequence[int]) -> list[SlurmJob]:
        """What accounting, or else the completion file, says of these jobs, oldest first."""
        return self._records.by_id(ids)

    def cancel(self, job_id: int) -> None:
        """Cancels a job; one that has ended already is left as it is."""
        self.process.ask("cancel", job_id=job_id)

    def hold(self, job_id: int) -> None:
        """Keeps a pending job from starting."""
        self.process.ask("hold", job_id=job_id)

    def release(self, job_id: int) -> None:
        """Lets a held job start."""
        self.process.ask("release", job_id=job_id)

    def requeue(self, job_id: int) -> None:
        """Puts a running job back into the queue; Slurm starts it again after about two minutes (22.05)."""
        self.process.ask("requeue", job_id=job_id)

    def nodes(self) -> list[SlurmNode]:
        """Every node, hidden ones included."""
        return [_node(**one) for one in self.process.ask("nodes")]

    def partitions(self) -> list[SlurmPartition]:
        """Every partition, hidden ones included."""
        return [_partition(**one) for one in self.process.ask("partitions")]

    def ping(self) -> None:
        """Returns if the controller answers."""
        self.process.ask("ping")

    def message_timeout(self) -> float | None:
        """Slurm's MessageTimeout in seconds."""
        return self._records.message_timeout()

    def close(self) -> None:
        """Ends pyslurm's process; a later call starts another. Without it, the process ends with this client."""
        self.process.close()

    def _jobs(self, names: Sequence[str] | None) -> list[SlurmJob]:
        jobs = [_job(**one) for one in self.process.ask("jobs", uid=self._uid, names=names)]
        # pyslurm takes 128 off exit codes from 128 up (22.5.3, 25.11.2), and what it makes of 200 and 72 is the same.
        unsure = {
            _run(job)
            for job in jobs
            if values.has_ended(job.state) and job.state != "COMPLETED" and job.exit_signal is None
        }
        exits = self._exits
        if not unsure <= exits.keys():
            told = squeue.jobs(self._runner, str(self._uid), names)
            exits = exits | {_run(job): (job.exit_code, job.exit_signal) for job in told if values.has_ended(job.state)}
        # Whole, for other threads ask as well; and nothing that has left the queue.
        self._exits = exits if names is not None else {run: exits[run] for run in unsure if run in exits}
        sure = [job for job in jobs if _run(job) not in unsure]
        # What squeue does not know any more, Slurm has forgotten in this moment.
        known = [job for job in jobs if _run(job) in unsure and _run(job) in exits]
        return sure + [_with_exit(job, *exits[_run(job)]) for job in known]


def _limits(settings: Mapping[str, str]) -> list[str]:
    """The resource limits that jobs get of whoever submits: slurm.conf's PropagateResourceLimits and ...Except."""
    spared = settings.get("PropagateResourceLimitsExcept", "").strip()
    if spared and not spared.startswith("("):
        return [name for name in _LIMITS if name not in spared.split(",")]
    named = settings.get("PropagateResourceLimits", "ALL").strip()
    return [name for name in _LIMITS if named == "ALL" or name in named.split(",")]


def _uid(user: str | None) -> int:
    if user is None:
        return os.geteuid()
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise SlurmError(f"there is no user {user!r} on this machine; name one, or give the uid") from None


def _run(job: SlurmJob) -> _Run:
    return job.id, job.restarts, job.submitted


def _job(**told: Any) -> SlurmJob:  # noqa: ANN401 - JSON
    state, flags = values.job_state(told["state"] or "")
    ended = values.has_ended(state)
    signaled = bool(told["exit_signal"])
    return SlurmJob(
        id=told["id"],
        name=told["name"],
        state=state,
        flags=flags,
        reason=values.words_or_none(told["reason"] or ""),
        nodes=values.host_names(told["nodes"] or ""),
        restarts=told["restarts"],
        exit_code=told["exit_code"] if ended and not signaled else None,
        exit_signal=told["exit_signal"] if ended and signaled else None,
        submitted=_moment(told["submitted"]),
        started=_moment(told["started"]),
        ended=_moment(told["ended"]) if ended else None,
    )


def _with_exit(job: SlurmJob, code: int | None, number: int | None) -> SlurmJob:
    return replace(job, exit_code=code, exit_signal=number)


def _moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _node(**told: Any) -> SlurmNode:  # noqa: ANN401 - JSON
    state, flags = values.node_state(told["state"] or "")
    if state == "ALLOCATED" and 0 < told["allocated"] < told["cpus"]:
        # scontrol works this out itself, and so does 25.11.2; 22.5.3 does not.
        state = "MIXED"
    return SlurmNode(
        name=told["name"],
        state=state,
        flags=flags,
        cpus=told["cpus"],
        sockets=told["sockets"],
        cores_per_socket=told["cores_per_socket"],
        threads_per_core=told["threads_per_core"],
        memory=told["memory"] or 0,
        partitions=tuple(told["partitions"]),
        reason=values.words_or_none(told["reason"] or ""),
    )


def _partition(**told: Any) -> SlurmPartition:  # noqa: ANN401 - JSON
    return SlurmPartition(
        name=told["name"],
        state=told["state"],
        nodes=values.host_names(told["nodes"] or ""),
        default=told["default"],
        time_limit=_limit(told["minutes"]),
    )


def _limit(minutes: int | None) -> str | None:
    """A partition's limit as scontrol writes it."""
    if minutes is None:
        return None
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hour:02}:{minute:02}:00"
