"""``cycle_time_ms``: how often Horovod's background thread looks for work (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOROVODS = 1.0
"""Milliseconds, Horovod's own default: what is to be sent waits for the next look."""
BESIDE = 10.0
"""Where it has nothing to carry in a step: it broadcasts and evaluates, and a look costs the core that computes."""
PERHAPS_BESIDE = 5.0
"""Where it has nothing to carry unless the ranks do not reach each other by TCP: then it carries all gradients, later
the less a piece takes than so long."""
MOST_RANKS_OVER_TCP = 16
"""Of a recipe whose gradients go over TCP where nothing is said of it: a piece is cut into a share for each rank, and
the messages of so many cost the core that computes about what Horovod's agreement on a piece does."""


def cycle_time_ms(spec: Mapping[str, Any], ranks: int) -> float:
    """``HOROVOD_CYCLE_TIME`` of a job of so many ranks, in milliseconds: what the spec says, else by what is carried.

    ``spec`` is as spec.json holds it; what it leaves out has the spec's own default.
    """
    communication = spec.get("communication", {})
    said = communication.get("cycle_time_ms")
    if said is not None:
        return float(said)
    # What is saved is agreed on over Horovod in every step, and no step would be shorter than a cycle.
    if spec.get("checkpoint") is not None:
        return HOROVODS
    if communication.get("transport") in ("gloo", "tcp"):
        return BESIDE
    is_recipe = spec.get("training", {}).get("model") is not None
    return PERHAPS_BESIDE if is_recipe and goes_over_tcp(communication, ranks) else HOROVODS


def goes_over_tcp(communication: Mapping[str, Any], ranks: int) -> bool:
    """Whether a recipe's gradients go over TCP, if the ranks reach each other, though nobody said so.

    By Horovod they would go over Gloo, and so over TCP, too. ``communication`` is the spec's section.
    """

    def is_default(name: str, value: str) -> bool:
        return communication.get(name) in (None, value)

    return (
        communication.get("transport") is None
        and is_default("exchange", "lockstep")
        and is_default("backend", "gloo")
        and ranks <= MOST_RANKS_OVER_TCP
    )
