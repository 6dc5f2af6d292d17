"""``Watched``: what the reconcile loop remembers of a live job, so that one with nothing new costs next to nothing.

The database has the last word: a job that anybody else has changed is looked at anew. Nothing in here is needed after
a restart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Row
from sqlalchemy.orm import Session

from lockstep_service.dispatch import worklists
from lockstep_service.jobs.waiting import estimate, in_words
from lockstep_service.telemetry.trouble import Trouble
from lockstep_slurm.client.protocol import SlurmJob
from lockstep_slurm.job.identity import slurm_name

Folders = tuple[int, int]
"""When something was last put into ``claims`` and ``exit``, in nanoseconds; 0 where there is no such folder."""

_GRAIN = 2_000_000_000
"""Nanoseconds: of two files that are made within so little, a folder may tell one time."""
_READ_AGAIN = 60.0
"""Seconds after which a run directory is read although its folders tell no change: file systems keep times back."""
_RECORDS_SHARE = 4
_RECORDS_LIMIT = 600.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a row shows of what Slurm told; ``lasting``: it also says that Slurm had no word of it, or of an end."""

    phase: str
    state: str | None
    flags: tuple[str, ...]
    nodes: tuple[str, ...]
    reason: str | None
    slurm_reason: str | None
    expected_start: datetime | None
    lasting: bool = False

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """From the columns of ``worklists.live_details``."""
        return cls(
            phase=row.phase,
            state=row.state,
            flags=tuple(row.flags),
            nodes=tuple(row.slurm_nodes),
            reason=row.reason,
            slurm_reason=row.slurm_reason,
            expected_start=row.expected_start,
            lasting=row.missing_since is not None or row.ended_seen_at is not None,
        )


@dataclass(slots=True)
class Watched:
    """A live job in Slurm's hands, or running by hand. ``mark`` is the last change of its row that is known here."""

    id: str
    mark: datetime
    slurm_job_id: int | None
    name: str
    """The name by which Slurm has it: a run by hand has no tag in it."""
    run: str
    by_hand: bool
    client: str
    stale: bool
    attempts: int
    observed: float
    """``observed_at`` of its row, in seconds since the epoch."""
    shown: Shown | None = None
    """What its row shows, until Slurm's word is compared with that."""
    told: SlurmJob | None = None
    """What Slurm told last, as far as it is in the row."""
    settled: bool = False
    """Whether the row says what follows from ``told`` and the files, and time alone adds nothing to that."""
    files: int = 0
    """A hash of what the run's files told that the row is by."""
    folders: Folders | None = None
    """As they were before the files were read; None where that may not show a later change."""
    read_again_at: float = 0.0
    missed_at: float | None = None
    """Since when the queue has not had it, and when the records were last asked for it (monotonic)."""
    records_at: float = 0.0

    def is_due(self, told: SlurmJob | None) -> bool:
        """Whether its files have to be read, by what Slurm tells now (None: nothing) and by their folders."""
        if self._is_shown(told):
            self.told, self.settled = told, True
        if self.is_news(told):
            return True
        if self.waits(told):
            return False  # Slurm speaks of its start before there are files
        return time.monotonic() > self.read_again_at or self._has_other_folders()

    def is_news(self, told: SlurmJob | None, files: int | None = None) -> bool:
        """Whether the row may have to change, by what Slurm tells now, and by a hash of the files if they were read."""
        return not self.settled or self.stale or not same(self.told, told) or files not in {None, self.files}

    def _has_other_folders(self) -> bool:
        """Whether they may have changed: also where that cannot be told, for then to read them tells what is wrong."""
        try:
            return folders(self.run) != self.folders
        except OSError:
            return True

    def _is_shown(self, told: SlurmJob | None) -> bool:
        """Whether it waits for its first start, and its row says so in Slurm's present words."""
        shown, self.shown = self.shown, None
        if shown is None or told is None or told.state != "PENDING" or self.stale or self.attempts or told.restarts:
            return False
        kept = shown.expected_start
        return shown == Shown(
            "waiting", told.state, told.flags, told.nodes, in_words(told.reason), told.reason,
            kept if estimate(kept, told.started) == kept else told.started,
        )  # fmt: skip

    def waits(self, told: SlurmJob | None) -> bool:
        """Whether it waited, and does so now."""
        return told is not None and told.state == "PENDING" and self.attempts == 0

    def has_read(self, found: Folders) -> None:
        """Notes that its files were read after ``found`` was their folders' state."""
        self.folders = found if max(found) < time.time_ns() - _GRAIN else None
        # Not all at once: after a start of the service they were all read together.
        self.read_again_at = time.monotonic() + _READ_AGAIN * (1 + hash(self.id) % 64 / 64)

    def missing(self, at: float) -> float:
        """For how many seconds the queue has not had it at ``at`` (monotonic); 0 where it has."""
        return 0.0 if self.missed_at is None else at - self.missed_at

    def ask_records(self, at: float) -> bool:
        """Whether to ask the records for it, of which the queue has no word at ``at`` (monotonic); notes that it is so.

        For one that has long been missing less and less often: there may never be a record.
        """
        if self.missed_at is None:
            self.missed_at = self.records_at = at
            return True
        if at - self.records_at < min((self.records_at - self.missed_at) / _RECORDS_SHARE, _RECORDS_LIMIT):
            return False
        self.records_at = at
        return True


def folders(run: str) -> Folders:
    """When something was last put into the run's ``claims`` and ``exit``; ``OSError`` where that cannot be told."""
    return _modified(f"{run}/claims"), _modified(f"{run}/exit")


def same(before: SlurmJob | None, after: SlurmJob | None) -> bool:
    """Whether both say the same; an estimate of the start that has moved a little is the same."""
    if before is after:
        return True
    if before is None or after is None:
        return False
    if before.state == "PENDING" and before.started is not None and after.started is not None:
        after = replace(after, started=estimate(before.started, after.started))
    return before == after


def _modified(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - for thousands of jobs
    except FileNotFoundError:
        return 0


@dataclass
class Watch:
    """All live jobs, by id."""

    jobs: dict[str, Watched] = field(default_factory=dict)
    asking_seconds: float = 0.0
    """How long Slurm took to answer the last time; 0 where it did not."""
    queue: Collection[tuple[int, str]] = ()
    """Number and name of the jobs that were in Slurm's queue when it told it last, and when that was asked for."""
    queue_at: datetime | None = None
    looks: int = 0
    """How many looks at the queue were taken for the sake of what is passed on to Slurm."""
    asking: Trouble = field(default_factory=Trouble)
    """What the log has of jobs that Slurm could not be asked about, and of cancels that it could not be told."""
    cancelling: Trouble = field(default_factory=Trouble)

    def refresh(self, session: Session) -> None:
        """Takes over what has changed in the database since."""
        marks = worklists.live_marks(session)
        self.jobs = {job_id: known for job_id in marks if (known := self.jobs.get(job_id)) is not None}
        changed = [
            job_id for job_id, mark in marks.items() if job_id not in self.jobs or self.jobs[job_id].mark != mark
        ]
        for row in worklists.live_details(session, changed):
            found = Watched(
                id=row.id,
                mark=row.changed_at,
                slurm_job_id=row.slurm_job_id,
                name=row.name if row.by_hand else slurm_name(row.name, row.id),
                run=row.run_dir,
                by_hand=row.by_hand,
                client=row.client,
                stale=row.stale_since is not None,
                attempts=row.attempts,
                observed=row.observed_at.timestamp() if row.observed_at is not None else 0.0,
                shown=Shown.of(row),
            )
            if (before := self.jobs.get(row.id)) is not None:
                found.missed_at, found.records_at = before.missed_at, before.records_at
            self.jobs[row.id] = found
