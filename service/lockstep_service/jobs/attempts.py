"""Which of the attempts that records speak of are the job's: only those that were claimed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lockstep_service.tables import JobRow
from lockstep_slurm.job.rundir import claimed_attempts


def claimed(row: JobRow, told: Iterable[int]) -> set[int]:
    """Those of these attempts that were claimed.

    A record may come before its attempt's claim was read, so the claims are looked at; the first attempt needs none. A
    rank whose writer counts wrongly, or a stranger with the job's token, makes no attempt by naming it.
    """
    found = set(told)
    known = {attempt.number for attempt in row.attempts} | {1}
    if not found <= known:
        known |= claimed_attempts(Path(row.run_dir))
    return found & known


def newest_claimed(row: JobRow, told: Iterable[int]) -> int | None:
    """The newest of these attempts that was claimed; None where none was."""
    return max(claimed(row, told), default=None)
