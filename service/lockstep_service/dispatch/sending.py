"""Sending a batch of submits to Slurm, a few at a time: never faster than allowed, and no more once Slurm says stop."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lockstep_service.boundary import Application
from lockstep_service.dispatch.brakes import EVERYTHING
from lockstep_service.dispatch.parallel import in_parallel
from lockstep_slurm.client.protocol import SlurmRefusedError, Submission
from lockstep_slurm.client.refusals import Meaning, meaning
from lockstep_slurm.errors import LockstepError


@dataclass(frozen=True)
class Outgoing:
    """One submit whose intent is stored."""

    job_id: str
    group: Hashable
    submission: Submission


@dataclass(frozen=True)
class Taken:
    """Slurm took it, as this job."""

    slurm_job_id: int


@dataclass(frozen=True)
class Refused:
    """Slurm answered no, in its words. ``braked``: seconds until another that shares the refusal may be tried."""

    meaning: Meaning
    said: str
    braked: float


@dataclass(frozen=True)
class Unanswered:
    """Nobody knows whether it happened, or still will."""

    why: str


@dataclass(frozen=True)
class NotSent:
    """Slurm has certainly not heard of it: another one's answer, or silence, was said to hold for this one as well."""

    why: str


Answer = Taken | Refused | Unanswered | NotSent

LONGEST_BRAKE = 15.0
"""Seconds at most until another job, or a ping, tries whether a brake is still needed: one question then."""


def send(app: Application, batch: Sequence[Outgoing]) -> dict[str, Answer]:
    """What became of each, by its job's id."""
    return dict(in_parallel(lambda one: (one.job_id, _submit(app, one)), batch, app.settings.submit_parallel))


def send_unless_braked(app: Application, batch: Sequence[Outgoing]) -> dict[str, Answer]:
    """The same; of what a brake holds nothing is sent, also when one of it may be tried: which, the next turn decides.

    For a batch that was made ready before what is known by now.
    """
    brakes = app.outbox.brakes
    held: dict[str, Answer] = {}
    for one in batch:
        why = next((brakes.reason(what) for what in (EVERYTHING, one.group) if brakes.is_on(what)), None)
        if why is not None:
            held[one.job_id] = NotSent(why)
    return held | send(app, [one for one in batch if one.job_id not in held])


def _submit(app: Application, one: Outgoing) -> Answer:
    why = _stopped(app, one)
    if why is None:
        app.outbox.wait_for_turn()
        why = _stopped(app, one)  # meanwhile
    if why is not None:
        return NotSent(why)
    brakes = app.outbox.brakes
    try:
        slurm_id = app.client.submit(one.submission)
    except SlurmRefusedError as error:
        return _refused(app, one, str(error))
    except (LockstepError, OSError) as error:
        why = f"Slurm does not answer ({error}); it is tried again"
        put_on(app, EVERYTHING, why)
        return Unanswered(why)
    # One that was sent before another's refusal says nothing against it.
    for what in (EVERYTHING, one.group):
        if brakes.is_on(what) and not brakes.left(what, time.monotonic()):
            brakes.take_off(what)
    return Taken(slurm_id)


def _refused(app: Application, one: Outgoing, said: str) -> Refused:
    found, braked = meaning(said), 0.0
    if found == "cluster":
        braked = put_on(app, EVERYTHING, f"Slurm takes no jobs for now ({said})")
    elif found in {"own limits", "unclear"}:
        braked = put_on(app, one.group, f"Slurm refused another job like it ({said})")
    return Refused(found, said, braked)


def put_on(app: Application, what: Hashable, why: str) -> float:
    """Puts a brake on; seconds that it lasts."""
    settings, moment = app.settings, time.monotonic()
    longest = min(settings.submit_retry_limit_seconds, LONGEST_BRAKE)
    return app.outbox.brakes.put_on(what, why, moment, settings.submit_retry_seconds, longest) - moment


def _stopped(app: Application, one: Outgoing) -> str | None:
    """Why it is not to be sent: a brake was put on since its batch was put together, or the service ends."""
    if app.outbox.closing:
        return "The service is being stopped; it is submitted when that is started again"
    brakes, moment = app.outbox.brakes, time.monotonic()
    return next((brakes.reason(what) for what in (EVERYTHING, one.group) if brakes.left(what, moment) > 0), None)
