"""From what a job left to a row of the table: values in, values out; what does not hold is a sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Key = tuple[int, int]
"""(attempt, rank)."""


@dataclass(frozen=True)
class Step:
    """One step of one rank. ``loss`` is exact: ``float.hex()``."""

    attempt: int
    rank: int
    step: int
    loss: str


@dataclass(frozen=True)
class Wanted:
    """What is true of a job that met this fault."""

    state: str
    """Slurm's word for its end."""
    attempts: int
    """Those that were claimed, a last one that somebody asked for by hand not among them."""
    reason: str = ""
    """A regular expression that the reason on the job's page has to hold; empty: there is none to give."""
    dropped: bool = False
    """Whether records may be missing, if as many are said to be."""
    more: bool = False
    """Whether they may be more."""


@dataclass(frozen=True)
class Found:
    """What a job left."""

    slurm_state: str
    """Slurm's own word, asked of Slurm."""
    phase: str
    """The service's, as ``state`` and ``reason``."""
    state: str
    reason: str
    attempts: int
    total: int
    """Steps that make the whole training."""
    trained: Sequence[Step]
    """By the trainings' own ledger."""
    recorded: Sequence[Step]
    """By the spool."""
    dropped: Mapping[Key, int]
    """Records that the spool says are missing."""
    torn: Sequence[str]
    """What in the spool is no record, or out of its order."""
    saved: int
    """The newest checkpoint on the disk when the fault came: its step."""
    checkpoints: Mapping[int, int]
    """The newest step that each attempt recorded as saved."""
    unreadable: Sequence[str]
    """Checkpoints that cannot be read."""
    left: Sequence[str]
    """Processes of the job, once all was over."""
    notes: Sequence[str] = ()
    """What the fault itself found out: a training that stood still while it should not."""
    again: bool = False
    """Whether the last attempt was asked for by hand, to see that it goes on from what was saved."""


@dataclass(frozen=True)
class Row:
    """One fault, and what came of it."""

    name: str
    fault: str
    outcome: str
    losses: str
    checkpoints: str
    spool: str
    left: str
    findings: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether all that is promised held."""
        return not self.findings


Reference = Mapping[tuple[int, int], str]
"""The losses of the run that nothing happened to, by (rank, step)."""


def row(name: str, fault: str, wanted: Wanted, found: Found, reference: Reference) -> Row:
    """The verdict."""
    findings = [
        *_state(wanted, found), *_losses(found, reference), *_checkpoints(found), *_spool(wanted, found),
        *(f"it left {process}" for process in found.left), *found.notes,
    ]  # fmt: skip
    starts = resumed(found.trained)
    attempts = found.attempts - found.again
    outcome = f"{found.slurm_state}, {found.phase}, {attempts} {'attempt' if attempts == 1 else 'attempts'}"
    equal = sum(reference.get((one.rank, one.step)) == one.loss for one in found.recorded)
    went_on = ", ".join(str(step) for attempt, step in starts.items() if attempt > 1)
    by_hand = " (requeued by hand)" if found.again else ""
    return Row(
        name=name,
        fault=fault,
        outcome=outcome + (f": {found.reason}" if found.reason else ""),
        losses=f"{equal} of {len(found.recorded)} equal",
        checkpoints=f"step {found.saved} at the fault" + (f", went on from {went_on}{by_hand}" if went_on else ""),
        spool=_spool_in_words(found),
        left="nothing" if not found.left else f"{len(found.left)} processes",
        findings=tuple(findings),
    )


def resumed(trained: Sequence[Step]) -> dict[int, int]:
    """The step behind which each attempt began, of those that made one."""
    first: dict[int, int] = {}
    for one in trained:
        first[one.attempt] = min(one.step - 1, first.get(one.attempt, one.step - 1))
    return dict(sorted(first.items()))


def _state(wanted: Wanted, found: Found) -> Iterator[str]:
    if found.slurm_state != wanted.state:
        yield f"Slurm says {found.slurm_state}, not {wanted.state}"
    if found.state != found.slurm_state:
        yield f"the service says {found.state} where Slurm says {found.slurm_state}"
    phase = "ended well" if wanted.state == "COMPLETED" else "ended badly"
    if found.phase != phase:
        yield f"its phase is {found.phase}, not {phase}"
    if wanted.reason and not re.search(wanted.reason, found.reason):
        yield f"its reason is {found.reason!r}, in which {wanted.reason!r} is not"
    if not wanted.reason and found.reason:
        yield f"it has a reason, {found.reason!r}, and nothing happened"
    if (attempts := found.attempts - found.again) != wanted.attempts and not (
        wanted.more and attempts > wanted.attempts
    ):
        yield f"it made {attempts} attempts, not {wanted.attempts}"


def _losses(found: Found, reference: Reference) -> Iterator[str]:
    for what, steps in (("the training's", found.trained), ("the spool's", found.recorded)):
        other = [one for one in steps if reference.get((one.rank, one.step)) != one.loss]
        if other:
            first = f"attempt {other[0].attempt}, rank {other[0].rank}, step {other[0].step}"
            yield f"{len(other)} of {what} losses differ; first: {first}"
    if found.attempts > 1 or found.state == "COMPLETED":
        for rank in sorted({rank for rank, _ in reference}):
            missing = set(range(1, found.total + 1)) - {one.step for one in found.trained if one.rank == rank}
            if missing:
                yield f"rank {rank} never made {len(missing)} of {found.total} steps; first: {min(missing)}"


def _checkpoints(found: Found) -> Iterator[str]:
    yield from (f"a checkpoint cannot be read: {one}" for one in found.unreadable)
    if found.saved == 0:
        yield "nothing was saved before the fault, so that it shows nothing"
    for attempt, step in resumed(found.trained).items():
        before = [saved for other, saved in found.checkpoints.items() if other < attempt]
        newest = max([found.saved, *before] if attempt > 1 else [0])
        if step < newest:
            yield f"attempt {attempt} went on from step {step}, though step {newest} had been saved"


def _spool(wanted: Wanted, found: Found) -> Iterator[str]:
    yield from (f"the spool: {one}" for one in found.torn)
    for (attempt, rank), missing in _missing(found).items():
        said = found.dropped.get((attempt, rank), 0)
        who = f"of rank {rank}, attempt {attempt}, {missing} steps are not in the spool"
        if missing > said:
            yield f"{who}, which says {said} dropped"
        elif not wanted.dropped:
            yield f"{who}, though nothing had to be dropped"


def _missing(found: Found) -> dict[Key, int]:
    recorded = {(one.attempt, one.rank, one.step) for one in found.recorded}
    missing: dict[Key, int] = {}
    for one in found.trained:
        if (one.attempt, one.rank, one.step) not in recorded:
            missing[one.attempt, one.rank] = missing.get((one.attempt, one.rank), 0) + 1
    return missing


def _spool_in_words(found: Found) -> str:
    missing, dropped = sum(_missing(found).values()), sum(found.dropped.values())
    if not missing:
        return "complete" if not dropped else f"all steps; {dropped} other records dropped, it says"
    return f"{missing} steps missing, {dropped} said to be"
