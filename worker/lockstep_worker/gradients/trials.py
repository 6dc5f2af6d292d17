"""``Trials``: real steps with several plans in turn, and which of these plans is kept. Pure: it is told the seconds.

In two stages. A few steps of each plan say which one looks best. Single steps vary by 15 % where one core computes and
communicates, so that the best of several is the luckiest one as often as not, and its own steps cannot tell: they are
what it was picked for. So it meets the default in further steps, and those alone decide. In doubt the default stays.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lockstep_worker.gradients.plan import Plan

ROUNDS = 4
"""Steps of each plan in the first stage, beside a first one that is not counted: Horovod agrees on new pieces in it."""
PAIRS = 16
"""Of turns, in the second stage. Where steps vary by 10 to 15 %, a plan that gains 10 % is kept in half of the tunings
with 16 pairs, and in a third with 8, at the same risk (simulated)."""
CHANCE = 0.04
"""Of a plan that is as fast as the default to win so many pairs. Where none of three is better, one of them looks it in
70 % of the tunings, so that 3 % keep one in vain."""
LEAST_GAIN = 0.005
"""Of a step; what gains less is not worth another plan."""


@dataclass(frozen=True)
class Choice:
    """The plan that is kept, by its place among those tried, and why; ``doubtful`` until further steps confirm it."""

    index: int
    why: str
    doubtful: bool = False


class Trials:
    """Steps with these plans, the default first, by ``turns``: the place of each step's plan, and whether it counts.

    ``known``: what an earlier stage has said of these plans.
    """

    def __init__(self, plans: Sequence[Plan], turns: Sequence[tuple[int, bool]], known: str | None = None) -> None:
        self._turns = turns
        self._plans = plans
        self._next = 0
        self._seconds: list[list[float]] = [[] for _ in plans]
        self.known = known

    @classmethod
    def of_all(cls, plans: Sequence[Plan], rounds: int = ROUNDS) -> Trials:
        """Each in turn, there and back, so that a slow change of the machine hits all."""
        there = list(range(len(plans)))
        return cls(
            plans,
            [(place, turn > 0) for turn in range(rounds + 1) for place in (there if turn % 2 else reversed(there))],
        )

    @classmethod
    def in_pairs(cls, default: Plan, other: Plan, known: str, pairs: int = PAIRS) -> Trials:
        """Neighbours in time, each as often first as last. A turn is two steps of which the second counts.

        A kept plan follows on itself. A step behind a switch does not: 1 MiB x 2 beat 1.63 MiB x 1 in 16 of 16 pairs of
        single steps (GoogLeNet over Horovod, one core a rank) and lost to it in 10 of 12 turns of four steps.
        """
        places = [place for pair in range(pairs) for place in ((1, 0) if pair % 2 else (0, 1))]
        return cls([default, other], [(place, counts) for place in places for counts in (False, True)], known)

    @property
    def over(self) -> bool:
        """Whether every step is done."""
        return self._next == len(self._turns)

    @property
    def plans(self) -> Sequence[Plan]:
        """What is tried, the default first."""
        return self._plans

    def next(self) -> Plan:
        """The next step's plan."""
        self._next += 1
        return self._plans[self._turns[self._next - 1][0]]

    def note(self, seconds: float) -> None:
        """What the step took on this rank, from one backward pass to the next one."""
        place, counts = self._turns[self._next - 1] if self._next else (0, False)
        if counts:
            self._seconds[place].append(seconds)

    def seconds(self) -> list[list[float]]:
        """By plan and round, of the steps that count."""
        return self._seconds

    def choose(self, seconds: Sequence[Sequence[Sequence[float]]]) -> Choice:
        """What the stage says, from the ``seconds()`` of all ranks."""
        return looks_best(self._plans, seconds) if self.known is None else confirmed(self._plans, seconds, self.known)


def looks_best(plans: Sequence[Plan], seconds: Sequence[Sequence[Sequence[float]]]) -> Choice:
    """The first stage, from the seconds by rank, plan and round. A step is as long as it is on its slowest rank.

    Compared are the steps of one round; the plan with the largest median gain goes on, if it gains ``LEAST_GAIN``.
    """
    steps = _slowest(seconds)
    step = statistics.median(steps[0])
    gains = [statistics.median(_gains(steps[0], one)) for one in steps]
    best = max(range(len(plans)), key=lambda place: gains[place])
    tried = f"of {len(plans)} plans tried in {len(steps[0])} steps each"
    if gains[best] <= LEAST_GAIN * step:
        return Choice(0, f"{said(plans[0])}: {tried} none was faster")
    return Choice(best, f"{tried} {said(plans[best])} was the fastest", doubtful=True)


def confirmed(plans: Sequence[Plan], seconds: Sequence[Sequence[Sequence[float]]], known: str) -> Choice:
    """The second stage: whether the other plan was faster than the default in enough pairs, and by ``LEAST_GAIN``.

    A sign test: it asks for no distribution, and one step that was held up for long counts as one.
    """
    steps = _slowest(seconds)
    gains = _gains(*steps)
    pairs, wanted, won = len(gains), wins_wanted(len(gains)), sum(gain > 0 for gain in gains)
    step, gain = statistics.median(steps[0]), statistics.median(gains)
    found = (
        f"faster than {said(plans[0])} in {won} of {pairs} pairs of further turns ({wanted} wanted), "
        f"median gain {gain * 1e3:.1f} ms of a step of {step * 1e3:.1f} ms"
    )
    if won >= wanted and gain > LEAST_GAIN * step:
        return Choice(1, f"{said(plans[1])}: {known}, and it was {found}")
    return Choice(0, f"{said(plans[0])}: {known}, which was not confirmed: {found}")


def wins_wanted(pairs: int) -> int:
    """The fewest pairs won of these that chance reaches with ``CHANCE`` at most; more than there are of too few."""

    def chance(least: int) -> float:
        ways: int = sum(math.comb(pairs, won) for won in range(least, pairs + 1))
        return ways / (1 << pairs)

    return next(won for won in range(pairs + 2) if chance(won) <= CHANCE)


def said(plan: Plan) -> str:
    """Its piece size and credit."""
    unit, size = ("MiB", 1 << 20) if plan.piece_bytes >= 1 << 20 else ("KiB", 1 << 10)
    return f"{plan.piece_bytes / size:.3g} {unit} x {plan.credit}"


def _slowest(seconds: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """By plan and round."""
    return [[max(one) for one in zip(*ranks)] for ranks in zip(*seconds)]  # noqa: B905 - Python 3.9


def _gains(default: Sequence[float], other: Sequence[float]) -> list[float]:
    return [mine - theirs for mine, theirs in zip(default, other)]  # noqa: B905 - Python 3.9
