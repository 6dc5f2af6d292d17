"""From a job's row before and after a change to the entries that tell of it. Pure: no clock, no database.

The sentences are told in the order in which one follows from the other: what was asked, what became of it on its way to
Slurm, what its attempts did, how it ended. An entry's time is when it happened as far as the row says so, else when the
service learnt of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from lockstep_service.jobs.phase import ENDED, without_message
from lockstep_service.placement.schemas import Result, worst
from lockstep_service.timeline.entry import Entry, Kind, scheduler, sentence
from lockstep_service.timeline.facts import AttemptFacts, Facts

_MOST_NODES = 6
_SAME = timedelta(seconds=1)
"""Slurm's clients tell a start to the second."""


def derive(before: Facts | None, after: Facts) -> list[Entry]:
    """What happened between the two; ``before`` is None for a job that was not known."""
    if before is None:
        return [*_stored(after)]
    known = {attempt.number: attempt for attempt in before.attempts}
    told = [(known.get(attempt.number), attempt) for attempt in after.attempts]
    return [
        *_asked(before, after),
        *_answered(before, after),
        *_outbox(before, after),
        *(_exit(attempt, after) for old, attempt in told if old is not None and _ended_anew(old, attempt)),
        *_started(before, after),
        *(entry for old, attempt in told if old is None for entry in _new_attempt(attempt, after)),
        *_verdict(before, after),
        *_standing(before, after),
        *_stale(before, after),
    ]


def _entry(time: datetime | None, after: Facts, kind: Kind, text: str, attempt: int | None = None) -> Entry:
    return Entry(time or after.changed_at, kind, sentence(text), attempt)


def _stored(after: Facts) -> Iterator[Entry]:
    text = "Its run directory was made by hand" if after.by_hand else "It was stored"
    if after.rerun_of is not None:
        text += f", as a rerun of job {after.rerun_of}"
    if after.follows is not None:
        text += f"; it waits until job {after.follows} has ended" + ("" if after.follows_any else " well")
    yield _entry(after.created_at, after, "stored", text)
    if after.user_hold:
        yield _entry(None, after, "asked", "Its owner holds it back")


def _asked(before: Facts, after: Facts) -> Iterator[Entry]:
    if after.user_hold and not before.user_hold:
        yield _entry(None, after, "asked", "Its owner holds it back")
    elif before.user_hold and not after.user_hold and after.phase not in ENDED and not _hold_was_refused(before, after):
        yield _entry(None, after, "asked", "Its owner holds it back no longer")
    if after.wanted == "requeue" != before.wanted:
        yield _entry(None, after, "asked", "Its owner asked for it to be put back into the queue")
    if after.cancel_requested_at is not None and before.cancel_requested_at is None:
        yield _entry(after.cancel_requested_at, after, "asked", "Its owner asked for its end")
    if after.cancel_sent_at is not None and before.cancel_sent_at is None and after.slurm_job_id is not None:
        yield _entry(after.cancel_sent_at, after, "asked", f"{scheduler(after.client)} was asked to end it")


def _hold_was_refused(before: Facts, after: Facts) -> bool:
    """Whether Slurm did not grant it, which the new reason tells."""
    return before.wanted == "hold" and after.wanted is None and after.reason not in {None, before.reason}


def _answered(before: Facts, after: Facts) -> Iterator[Entry]:
    if before.stale_since is not None and after.stale_since is None:
        yield _entry(None, after, "answered", f"{scheduler(after.client)} answers again")


def _stale(before: Facts, after: Facts) -> Iterator[Entry]:
    if after.stale_since is not None and before.stale_since is None:
        yield _entry(
            after.stale_since,
            after,
            "stale",
            f"{scheduler(after.client)} does not answer; what was known of it is kept",
        )


def _outbox(before: Facts, after: Facts) -> Iterator[Entry]:
    if after.dispatched_at is not None and before.dispatched_at is None:
        number = f" as job {after.slurm_job_id}" if after.slurm_job_id is not None else ""
        yield _entry(after.dispatched_at, after, "dispatched", f"{scheduler(after.client)} took it{number}")
    if after.phase == "accepted" and after.reason and after.reason != before.reason:
        yield _entry(None, after, "submit", after.reason)


def _started(before: Facts, after: Facts) -> Iterator[Entry]:
    """Slurm's word of a start. One that never ran has its start and its end in the same moment, and no nodes."""
    new, old = after.started_at, before.started_at
    if after.phase not in {"running", *ENDED} or new is None or (old is not None and abs(new - old) <= _SAME):
        return
    if after.by_hand:
        yield _entry(new, after, "started", "It was started by hand")
    elif after.slurm_nodes or after.client == "local":
        again = " again" if old is not None else ""
        where = f" on {_nodes(after.slurm_nodes)}" if after.slurm_nodes else ""
        yield _entry(new, after, "started", f"{scheduler(after.client)} started it{again}{where}")


def _new_attempt(attempt: AttemptFacts, after: Facts) -> Iterator[Entry]:
    ranks = "1 rank" if attempt.ranks == 1 else f"{attempt.ranks} ranks"
    where = f" on {_nodes(attempt.nodes)}" if attempt.nodes else ""
    text = f"Attempt {attempt.number} began with {ranks}{where}"
    yield _entry(attempt.started_at, after, "attempt", text, attempt.number)
    if _has_exit(attempt):
        yield _exit(attempt, after)


def _has_exit(attempt: AttemptFacts) -> bool:
    return attempt.exit_code is not None or attempt.exit_signal is not None


def _ended_anew(old: AttemptFacts, new: AttemptFacts) -> bool:
    return _has_exit(new) and not _has_exit(old)


def _exit(attempt: AttemptFacts, after: Facts) -> Entry:
    killed = attempt.exit_signal is not None
    how = f"signal {attempt.exit_signal}" if killed else f"exit code {attempt.exit_code}"
    text = f"Attempt {attempt.number} ended with {how}" + (f": {attempt.message}" if attempt.message else "")
    return _entry(attempt.ended_at, after, "exit", text, attempt.number)


def _verdict(before: Facts, after: Facts) -> Iterator[Entry]:
    """Told when every rank has said something, and again when that comes to another result."""
    result = _result(after)
    number = after.verdicts.get("attempt")
    if result is None or (result == _result(before) and number == before.verdicts.get("attempt")):
        return
    ranks = _ranks(after)
    count = after.verdicts["results"].get(result, 0)
    some = f"{count} of {ranks} ranks" if count < ranks else "the only rank" if ranks == 1 else f"all {ranks} ranks"
    text = {
        "as planned": f"The threads of {some} sit as planned",
        "degraded": f"The threads of {some} sit as planned, by a plan that names what it could not do",
        "deviates": f"Threads of {some} do not sit where they were planned",
    }[result]
    yield _entry(None, after, "verdict", text, number)


def _result(facts: Facts) -> Result | None:
    if not facts.verdicts:
        return None
    results: dict[str, int] = facts.verdicts["results"]
    return worst(name for name, count in results.items() if count) if sum(results.values()) >= _ranks(facts) else None


def _ranks(facts: Facts) -> int:
    """Of the attempt that the verdicts are of; as many as the job asked for before it was seen to be claimed."""
    number = facts.verdicts.get("attempt")
    return next((attempt.ranks for attempt in facts.attempts if attempt.number == number), facts.ranks)


def _standing(before: Facts, after: Facts) -> Iterator[Entry]:
    """What follows from the phase, and from Slurm's reason while it stays the same."""
    moved = after.phase != before.phase
    reason = _reason(after)
    said = reason if after.reason != before.reason else None
    if after.phase == "waiting":
        if before.phase in {"running", *ENDED}:
            yield _entry(
                None, after, "requeued", _with(f"{scheduler(after.client)} put it back into the queue", reason)
            )
        elif said:
            yield _entry(None, after, "waiting", _waiting(said, after.slurm_reason))
    elif after.phase == "running":
        yield from _running(before, after)
        if said:
            yield _entry(None, after, "remark", said)
    elif after.phase == "unknown" and (moved or said):
        yield _entry(None, after, "unknown", _with("How it stands is not known", after.reason))
    elif after.phase == "ended well" and moved:
        yield _entry(after.ended_at, after, "ended well", _with("It ended well", after.reason))
    elif after.phase == "ended badly" and moved:
        as_told = f", as attempt {after.attempts[-1].number} did" if after.reason and not reason else ""
        yield _entry(after.ended_at, after, "ended badly", _with(f"It ended badly{as_told}", reason))


def _reason(after: Facts) -> str | None:
    """The reason, without what the entry of its last attempt's end tells, which comes before this one."""
    last = after.attempts[-1] if after.attempts else None
    if after.reason is None or last is None or not last.message or not _has_exit(last):
        return after.reason
    return without_message(after.reason, last.message) or None


def _running(before: Facts, after: Facts) -> Iterator[Entry]:
    if before.phase in {"unknown", *ENDED} and after.started_at == before.started_at:
        yield _entry(None, after, "known", "It is known to run")
    if after.state == "SUSPENDED" != before.state:
        yield _entry(None, after, "suspended", f"{scheduler(after.client)} suspended it")
    if before.state == "SUSPENDED" != after.state:
        yield _entry(None, after, "resumed", f"{scheduler(after.client)} let it go on")


def _waiting(reason: str, verbatim: str | None) -> str:
    """A single word is Slurm's own, and is told as such; a sentence has Slurm's word behind it."""
    if " " not in reason.strip():
        return f"It waits; Slurm's word for why is {reason}"
    return reason if verbatim is None or verbatim in reason else f"{reason.rstrip('.')} (Slurm: {verbatim})"


def _with(text: str, reason: str | None) -> str:
    """``reason`` behind ``text``, as one sentence."""
    if not reason:
        return text
    first, _, rest = reason.partition(" ")
    return f"{text}: {'it' if first == 'It' else first}{' ' if rest else ''}{rest}"


def _nodes(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_MOST_NODES])
    return shown if len(names) <= _MOST_NODES else f"{shown} and {len(names) - _MOST_NODES} more nodes"
