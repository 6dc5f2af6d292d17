"""Throughput and communication share over a rank's newest steps: one step of a few milliseconds is noise, no figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep_service.metrics.record import number

RECENT = 20
"""Steps that a figure of "now" is taken over."""


@dataclass(frozen=True)
class Pace:
    """What one step record says of speed; seconds, those of all steps that it stands for."""

    seconds: float | None
    samples_per_s: float | None
    exposed_s: float | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Pace:
        """From a step record's values."""
        return cls(*(number(values.get(name)) for name in ("seconds", "samples_per_s", "exposed_s")))


def throughput(steps: Sequence[Pace]) -> float | None:
    """Samples per second of one rank over these steps: what it told, each by its seconds where it told these, too.

    Not ``samples`` by ``seconds``: of a script that reports every tenth step, these are one step's, and those of ten.
    """
    told = [(step.samples_per_s, step.seconds) for step in steps if step.samples_per_s is not None]
    timed = [(rate, seconds) for rate, seconds in told if seconds is not None and seconds > 0]
    if timed and len(timed) == len(told):
        return number(sum(rate * seconds for rate, seconds in timed) / sum(seconds for _, seconds in timed))
    return number(sum(rate for rate, _ in told) / len(told)) if told else None


def exposed_share(steps: Sequence[Pace]) -> float | None:
    """exposed_s by seconds of one rank over these steps; None where neither step tells both."""
    both = [(step.exposed_s, step.seconds) for step in steps if step.exposed_s is not None and step.seconds]
    timed = [(waited, seconds) for waited, seconds in both if seconds > 0]
    return number(sum(waited for waited, _ in timed) / sum(seconds for _, seconds in timed)) if timed else None
