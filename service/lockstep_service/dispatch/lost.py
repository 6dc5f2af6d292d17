"""What to do about a job of which a submit's answer was lost, by the copies of it that Slurm has. Pure.

The state machine is drawn in docs/decisions/0008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lockstep_slurm.client.protocol import SlurmJob


@dataclass(frozen=True)
class Lost:
    """What the database knows of such a job."""

    held: bool
    """Whether a second copy was submitted, held; else only the first was."""
    slurm_job_id: int | None
    """The held copy, where its own answer was had."""
    lost_since: datetime | None
    """The first look-up since that found no other copy."""
    cancelled: bool
    """Whether its owner wants its end."""


@dataclass(frozen=True)
class Unread:
    """What the run directory tells of its starts cannot be read: it may have been started, or not."""

    why: str


@dataclass(frozen=True)
class Adopt:
    """This copy is the job; ``spare`` ones are cancelled first."""

    slurm_job_id: int
    spare: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hold:
    """This held copy is there after all: from here on the two look-ups count."""

    slurm_job_id: int


@dataclass(frozen=True)
class SubmitHeld:
    """No copy: a second one is submitted, held."""


@dataclass(frozen=True)
class LookAgain:
    """No other copy than the held one, for the first time, or not yet for long enough."""

    since: datetime


@dataclass(frozen=True)
class Release:
    """No other copy for long enough: the held one is the job; ``spare`` held ones are cancelled first."""

    slurm_job_id: int
    spare: tuple[int, ...] = ()


@dataclass(frozen=True)
class Withdraw:
    """Its owner wants its end: held copies are cancelled, and it ends when none has turned up for long enough."""

    spare: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Nothing is decided while it cannot be read which copy was started, or whether one was."""

    why: str


Step = Adopt | Hold | SubmitHeld | LookAgain | Release | Withdraw | Wait


def next_step(  # noqa: PLR0911 - one return a step
    job: Lost, copies: Sequence[SlurmJob], started_as: int | Unread | None, moment: datetime, pause: timedelta
) -> Step:
    """The next step for ``job``.

    ``copies``: Slurm's jobs of its name, in the queue or in the records. ``started_as``: the Slurm job that its run
    directory says it was started as: that one trains, and Slurm may have forgotten it. ``pause``: between two looks.
    """
    others = [copy for copy in copies if not job.held or copy.id != job.slurm_job_id]
    held = sorted(copy.id for copy in others if job.held and is_held(copy))
    free = [copy for copy in others if copy.id not in held]
    if isinstance(started_as, Unread) and len(free) != 1:
        return Wait(started_as.why)
    if free:
        first, *more = sorted(free, key=lambda copy: (copy.id != started_as, *_worst_last(copy)))
        mine = [job.slurm_job_id] if job.held and job.slurm_job_id is not None else []
        return Adopt(first.id, (*mine, *held, *(copy.id for copy in more)))
    if isinstance(started_as, int) and started_as != job.slurm_job_id and started_as not in held:
        return Adopt(started_as, tuple(held) if job.slurm_job_id is None else (job.slurm_job_id, *held))
    if held and job.slurm_job_id is None:
        # Of a held submit the answer was lost as well; a first copy, which nothing holds, may still come.
        return Hold(held[0])
    if job.cancelled:
        return Withdraw(() if job.slurm_job_id is None else (job.slurm_job_id, *held))
    if job.slurm_job_id is None:
        return SubmitHeld()
    if job.lost_since is not None and moment - job.lost_since >= pause:
        return Release(job.slurm_job_id, tuple(held))
    return LookAgain(job.lost_since or moment)


def is_held(copy: SlurmJob) -> bool:
    """Whether it waits for its release."""
    return copy.state == "PENDING" and copy.reason == "JobHeldUser"


def _worst_last(copy: SlurmJob) -> tuple[bool, int]:
    """One that was cancelled before it started may be a held copy that an earlier process of ours cancelled."""
    return copy.state == "CANCELLED" and not copy.nodes, copy.id
