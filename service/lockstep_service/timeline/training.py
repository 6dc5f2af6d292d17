"""What an attempt tells of its checkpoints and its data, as entries: one of a kind, however much it tells. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Final

from lockstep_service.metrics.rank import Attempt
from lockstep_service.metrics.saved import Resumed, Saved
from lockstep_service.metrics.sources import Staging, staging_in_words
from lockstep_service.metrics.words import bytes_in_words, seconds_in_words
from lockstep_service.timeline.entry import Entry, sentence

KINDS: Final = frozenset({"resume", "checkpoint", "staging"})
"""The kinds of records that are told of."""


def entries(attempt: Attempt, told: Collection[str]) -> Iterator[Entry]:
    """What is to be said of ``attempt`` now that records of the kinds ``told`` came, in place of what was said."""
    number = attempt.number
    if "staging" in told:
        yield from _staged(number, list(attempt.staging.values()), staging_in_words(attempt.staging))
    if "resume" in told and attempt.resumed is not None:
        yield _resumed(number, attempt.resumed)
    if "checkpoint" in told:
        if attempt.saved.count:
            yield _saved(number, attempt.saved)
        if attempt.saved.failed:
            yield _failed(number, attempt.saved)


def _resumed(number: int, resumed: Resumed) -> Entry:
    by = "" if resumed.saved_by is None else f", saved by attempt {resumed.saved_by}"
    whose = "" if resumed.job is None else f" of job {resumed.job}"
    text = f"Attempt {number} goes on from the checkpoint of step {resumed.step:,}{by}{whose}"
    return Entry(_when(resumed.time), "goes on", sentence(text), number)


def _saved(number: int, saved: Saved) -> Entry:
    if saved.count == 1:
        text = f"Attempt {number} saved a checkpoint{_behind(saved.newest)}"
    else:
        steps = "" if saved.first is None else f" behind steps {saved.first:,} to {saved.newest:,}"
        text = f"Attempt {number} saved {saved.count:,} checkpoints{steps}, the newest of them"
    details = [
        *([] if saved.file is None else [saved.file]),
        *([] if saved.bytes is None else [bytes_in_words(saved.bytes)]),
        *([] if saved.seconds is None else [f"written in {seconds_in_words(saved.seconds)}"]),
    ]
    if details:
        text += f" as {', '.join(details)}" if saved.file is not None else f" of {', '.join(details)}"
    if saved.held_s is not None:
        text += f"; the training was held up for {seconds_in_words(saved.held_s)}"
    return Entry(_when(saved.time), "checkpoint", sentence(text), number)


def _failed(number: int, saved: Saved) -> Entry:
    why = f": {saved.why}" if saved.why else ""
    if saved.failed == 1:
        text = f"Attempt {number} could not save a checkpoint{_behind(saved.failed_step)}{why}"
    else:
        newest = "" if saved.failed_step is None else f", the last of them{_behind(saved.failed_step)}"
        text = f"Attempt {number} could not save {saved.failed:,} checkpoints{newest}{why}"
    text += "; the training goes on, and what was saved before is kept"
    return Entry(_when(saved.failed_time), "not saved", sentence(text), number)


def _staged(number: int, nodes: list[Staging], words: str | None) -> Iterator[Entry]:
    """Told of copies that are whole; how far others are the page shows."""
    if words is not None and all(one.whole for one in nodes):
        yield Entry(_when(max(one.time for one in nodes)), "staged", sentence(words), number)


def _behind(step: int | None) -> str:
    return "" if step is None else f" behind step {step:,}"


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
