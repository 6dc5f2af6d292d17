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
    """What one step record says of speed; seconds, samples."""

    samples: float | None
    seconds: float | None
    samples_per_s: float | None
    exposed_s: float | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Pace:
        """From a step record's values."""
        return cls(*(number(values.get(name)) for name in ("samples", "seconds", "samples_per_s", "exposed_s")))


def throughput(steps: Sequence[Pace]) -> float | None:
    """Samples per second of one rank over these steps: all samples by all seconds, else the mean of what it told."""
    timed = [(step.samples, step.seconds) for step in steps if step.samples is not None and step.seconds is not None]
    timed = [(samples, seconds) for samples, seconds in timed if seconds > 0]
    if timed and len(timed) == len([step for step in steps if step.samples_per_s is not None]):
        return number(sum(samples for samples, _ in timed) / sum(seconds for _, seconds in timed))
    told = [step.samples_per_s for step in steps if step.samples_per_s is not None]
    return number(sum(told) / len(told)) if told else None


def exposed_share(steps: Sequence[Pace]) -> float | None:
    """exposed_s by seconds of one rank over these steps; None where neither step tells both."""
    both = [(step.exposed_s, step.seconds) for step in steps if step.exposed_s is not None and step.seconds]
    timed = [(waited, seconds) for waited, seconds in both if seconds > 0]
    return number(sum(waited for waited, _ in timed) / sum(seconds for _, seconds in timed)) if timed else None
