"""``cycle_time_ms``: how often Horovod's background thread looks for work (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOROVODS = 1.0
"""Milliseconds, Horovod's own default: a gradient waits for the next look."""
BESIDE = 10.0
"""Where something else carries the gradients. Horovod broadcasts and evaluates there, and each look costs the core that
computes."""


def cycle_time_ms(communication: Mapping[str, Any]) -> float:
    """``HOROVOD_CYCLE_TIME`` of a job, in milliseconds: what the spec says, else by what carries the gradients.

    ``communication`` is the spec's section as spec.json holds it; what it leaves out has the spec's own default.
    """
    said = communication.get("cycle_time_ms")
    if said is not None:
        return float(said)
    return BESIDE if communication.get("transport") in ("gloo", "tcp") else HOROVODS
