"""One launch: every arm started, then trained by turns until there are enough slices, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from benchmarks.side_by_side.arms import Arm

T = TypeVar("T")
FEWEST = 3
"""Rounds that are made even where the time is over: fewer say nothing."""
SLICE = 1.2
"""Seconds of timed steps in a slice of the fastest arm."""
LONGEST_SLICE = 2.5
"""Seconds in which a much slower arm makes fewer steps: that it is slow needs no patience to be seen."""
WARM = 2
"""Steps before the timed ones of a slice: the caches and the clock belonged to another arm. One for a slow arm."""
FIRST = (4, 2)
"""Untimed and timed steps of each arm's first slice, which does not count but says how long a step takes."""
LOSSES_AGREE = 1e-3
"""Relative: another number of threads adds up in another order; another sample or step would differ by far more."""


@dataclass(frozen=True)
class Pace:
    """How the arms take turns."""

    rounds: int
    seconds: float
    """After which no further round is begun."""
    steps: int | None = None
    """Timed, in a slice; None: as many as take the fastest arm ``SLICE`` seconds."""


@dataclass(frozen=True)
class Outcome:
    """One arm in one launch."""

    step_seconds: tuple[float, ...]
    """By round: seconds of a step."""
    losses: tuple[tuple[float, ...], ...]
    """By rank, of all steps."""
    digests: tuple[str, ...]
    """By rank, of the parameters at the end."""
    cpus: tuple[tuple[int, ...], ...]
    """By rank, its main thread's mask."""
    threads: tuple[int, ...]
    variables: tuple[dict[str, str], ...]
    verdicts: tuple[str, ...] = ()
    """What Lockstep's own proof said, where it was Lockstep's arm."""

    def document(self) -> dict[str, Any]:
        """As JSON takes it; ``Outcome.parse`` is the inverse."""
        return asdict(self)

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Outcome:
        """From ``document()``'s form, after JSON."""
        return cls(
            step_seconds=tuple(document["step_seconds"]),
            losses=tuple(tuple(one) for one in document["losses"]),
            digests=tuple(document["digests"]),
            cpus=tuple(tuple(one) for one in document["cpus"]),
            threads=tuple(document["threads"]),
            variables=tuple(document["variables"]),
            verdicts=tuple(document["verdicts"]),
        )


def equal(ours: Outcome, peer: Outcome) -> bool:
    """Whether both trained the same: the same losses, step by step and rank by rank, as far as both went, and one model
    on all ranks of each at its end.
    """  # noqa: D205
    if len(ours.losses) != len(peer.losses) or len(set(ours.digests)) != 1 or len(set(peer.digests)) != 1:
        return False
    common = min(len(one) for one in (*ours.losses, *peer.losses))
    return (
        common > sum(FIRST)
        and all(
            abs(own - theirs) <= LOSSES_AGREE * abs(own)  # false for NaN
            for own_rank, their_rank in zip(ours.losses, peer.losses, strict=True)
            for own, theirs in zip(own_rank[:common], their_rank[:common], strict=True)
        )
    )


def take_turns(arms: Sequence[Arm], pace: Pace) -> dict[str, Outcome]:
    """Trains the arms, which have been started, by turns; by name what each did. Raises ``ArmError``.

    Every round is one slice of each arm, in another order than the round before it.
    """
    for arm in arms:
        arm.gate.meet()
    began = time.monotonic()
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    losses: dict[str, list[list[float]]] = {arm.name: [[] for _ in range(arm.work.ranks)] for arm in arms}

    def train(arm: Arm, steps: int, warm: int) -> float:
        done = arm.gate.train(steps, warm)
        for rank, more in enumerate(done.losses):
            losses[arm.name][rank] += more
        return done.seconds / steps

    steps = steps_of({arm.name: train(arm, FIRST[1], FIRST[0]) for arm in arms}, pace.steps)
    most = max(steps.values())
    for number in range(pace.rounds):
        if number >= min(FEWEST, pace.rounds) and time.monotonic() - began > pace.seconds:
            break
        for arm in order(arms, number):
            own = steps[arm.name]
            seconds[arm.name].append(train(arm, own, WARM if own == most else 1))
    found = {}
    for arm in arms:
        digests = arm.finish()
        hellos = arm.gate.hellos
        found[arm.name] = Outcome(
            step_seconds=tuple(seconds[arm.name]),
            losses=tuple(map(tuple, losses[arm.name])),
            digests=digests,
            cpus=tuple(one.cpus for one in hellos),
            threads=tuple(one.threads for one in hellos),
            variables=tuple(one.variables for one in hellos),
            verdicts=arm.verdicts(),
        )
    return found


def steps_of(step_seconds: Mapping[str, float], steps: int | None) -> dict[str, int]:
    """Timed steps of each arm's slices: the same for all, but fewer for one that would take ``LONGEST_SLICE``."""
    usual = steps or math.ceil(SLICE / min(step_seconds.values()))
    return {name: max(min(2, usual), min(usual, int(LONGEST_SLICE / one))) for name, one in step_seconds.items()}


def order(arms: Sequence[T], number: int) -> list[T]:
    """The arms in the order of round ``number``: turned by one each round, and backwards in every other full turn.

    So each comes first, and each last, equally often, and none always follows the same one.
    """
    turn, first = divmod(number, len(arms))
    turned = [*arms[first:], *arms[:first]]
    return turned[::-1] if turn % 2 else turned
