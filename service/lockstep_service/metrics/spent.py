"""``Spent``: where the time of one rank's step goes, as the mean over its newest steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from lockstep_service.metrics.rank import Rank
from lockstep_service.metrics.record import number
from lockstep_service.metrics.told import COMPUTED, TIMES, TOLD, Told

_LONGEST = 1e9
"""Seconds; a step that takes 30 years is none, and such numbers add up to what no answer can hold."""


@dataclass(frozen=True)
class Spent:
    """One rank's mean step; seconds, and bytes. ``parts`` has those of the record's names that this rank tells."""

    rank: int
    node: str | None
    steps: int
    """Over how many records the mean was taken."""
    seconds: float
    parts: Mapping[str, float]

    @property
    def computing(self) -> float | None:
        """Seconds in which it works and waits for nobody; None where that is not told."""
        if "forward_s" not in self.parts or "backward_s" not in self.parts:
            return None
        return sum(self.parts.get(name, 0.0) for name in COMPUTED)

    def split(self) -> dict[str, float]:
        """The parts that add up to the step, by name, in the order in which they are drawn: those that are known."""
        found = {name.removesuffix("_s"): self.parts[name] for name in COMPUTED if name in self.parts}
        if (exposed := self.parts.get("exposed_s")) is not None:
            if (waiting := self.parts.get("waiting_s")) is None:
                found["exposed"] = exposed
            else:
                waiting = min(waiting, exposed)
                found |= {"transfer": exposed - waiting, "waiting": waiting}
        rest = max(0.0, self.seconds - sum(found.values()))
        return found | {"other" if self.computing is not None else "untold": rest}


def spent(rank: Rank) -> Spent | None:
    """Of its newest steps; None where it tells no time of a step.

    A record may stand for several steps. Only records that tell what the newest one tells count, so that the parts of
    the mean belong together.
    """
    timed = [told for told in rank.newest() if (told.figure("seconds") or 0) > 0]
    if not timed:
        return None
    names = [name for name in TOLD if timed[-1].figure(name) is not None]
    whole = [
        (told, values) for told in timed if None not in (values := [number(told.values.get(name)) for name in names])
    ]
    steps = len(whole) * _steps_of_one([told for told, _ in whole])
    sums = [
        sum(max(0.0, value or 0.0) for value in column) / steps for column in zip(*(v for _, v in whole), strict=True)
    ]
    means = dict(zip(names, sums, strict=True))
    if max(mean for name, mean in means.items() if name in TIMES) > _LONGEST:
        return None
    return Spent(rank.rank, rank.node, len(whole), means.pop("seconds"), means)


def _steps_of_one(records: list[Told]) -> float:
    """How many steps a record stands for: by how many the number of the step grows, as a rule."""
    numbers = [told.step for told in records if told.step is not None]
    grown = [after - before for before, after in pairwise(numbers) if after > before]
    return float(median(grown)) if grown else 1.0
