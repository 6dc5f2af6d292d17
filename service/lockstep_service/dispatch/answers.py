"""What an answer of Slurm's, or none, makes of a job's row while it is on its way. Each is one step of the outbox."""

from __future__ import annotations

from datetime import datetime, timedelta

from lockstep_service.settings import Settings
from lockstep_service.tables import JobRow
from lockstep_slurm.client.refusals import Meaning

_WAITS_FOR = {
    "own limits": "Slurm takes no more jobs of this user or account for now",
    "cluster": "Slurm takes no jobs for now",
    "resources": "What it asks for cannot be had for now",
    "unclear": "Slurm refuses it, perhaps only for now",
}


def intend(row: JobRow, moment: datetime, *, hold: bool) -> None:
    """A submit is about to be made."""
    row.submit_started_at, row.held = moment, hold
    row.submit_tries += 1


def take_back(row: JobRow, started_at: datetime | None, *, held: bool, reason: str) -> None:
    """That submit was not made: everything is as it was before."""
    row.submit_started_at, row.held, row.reason = started_at, held, reason
    row.submit_tries -= 1


def put_off(row: JobRow, until: datetime, why: str | None) -> None:
    """It is not tried before ``until``, when a brake lets one of its group through."""
    row.submit_after, row.reason = until, row.reason or why


def dispatch(row: JobRow, slurm_id: int, moment: datetime) -> None:
    """Slurm has it as this job."""
    row.slurm_job_id, row.dispatched_at = slurm_id, moment
    row.phase, row.reason = "waiting", None
    row.submit_started_at = row.submit_after = row.lost_since = row.refused_since = row.stale_since = None
    row.held = False


def keep_held(row: JobRow, slurm_id: int) -> None:
    """Slurm has a held copy: from here on the two look-ups count."""
    row.slurm_job_id, row.lost_since, row.submit_after = slurm_id, None, None
    row.reason = "A submit's answer was lost; a second copy is held until it is certain that there is no first"


def look_again(row: JobRow, since: datetime, pause: timedelta) -> None:
    """No other copy than the held one was found, for the first time ``since``."""
    row.lost_since, row.submit_after = since, since + pause


def forget_copy(row: JobRow) -> None:
    """The held copy is not there any more."""
    row.slurm_job_id = row.lost_since = None


def end(row: JobRow, reason: str, moment: datetime) -> None:
    """It ends without Slurm having it."""
    row.phase, row.reason, row.ended_at, row.ended_seen_at = "ended badly", reason, moment, moment
    row.slurm_job_id = None
    row.submit_started_at = row.submit_after = row.lost_since = row.refused_since = None
    row.held = False


def try_later(row: JobRow, reason: str, settings: Settings, moment: datetime) -> None:
    """It is tried again, after a pause that grows from try to try."""
    row.submit_tries = max(row.submit_tries, 1)
    pause = min(settings.submit_retry_seconds * 2 ** min(row.submit_tries - 1, 16), settings.submit_retry_limit_seconds)
    row.submit_after = moment + timedelta(seconds=pause)
    row.submit_tries += 1
    row.reason = reason


def refuse(
    row: JobRow,
    meaning: Meaning,
    said: str,
    settings: Settings,
    moment: datetime,
    *,
    pause: timedelta,
    braked: float,
) -> None:
    """Slurm answered no. That ends the job if it is for good, or unclear for too long.

    Not while an earlier submit may still happen: what was refused may be a second copy of it. ``pause``: between two
    look-ups. ``braked``: seconds until one of the jobs that share the refusal may be tried; 0 where it is this one's.
    """
    if meaning == "unclear":
        row.refused_since = row.refused_since or moment
        too_long = moment - row.refused_since >= timedelta(seconds=settings.refused_limit_seconds)
    else:
        row.refused_since, too_long = None, False
    if meaning == "for good" or too_long:
        since = f" ever since {row.refused_since:%Y-%m-%d %H:%M} UTC" if row.refused_since is not None else ""
        if not row.held or quiet_long_enough(row, f"Slurm refused a second copy of it ({said})", moment, pause):
            end(row, f"Slurm refused it{since}: {said}", moment)
        return
    if row.held:
        row.lost_since = row.lost_since or moment  # the look before this submit found no copy
    else:
        row.submit_started_at = None
    try_later(row, f"{_WAITS_FOR[meaning]} ({said}); it is tried again", settings, moment)
    if braked and meaning != "unclear":  # the oldest is tried first; one that is never taken must let others try
        row.submit_after = moment + timedelta(seconds=braked)


def quiet_long_enough(row: JobRow, reason: str, moment: datetime, pause: timedelta) -> bool:
    """Whether no copy was found for twice the time between look-ups; if not, the next look-up is set."""
    row.lost_since = row.lost_since or moment
    if moment - row.lost_since >= 2 * pause:
        return True
    row.submit_after, row.reason = moment + pause, reason
    return False
