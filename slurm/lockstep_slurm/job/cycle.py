"""``cycle_time_ms``: how often Horovod's background thread looks for work (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOROVODS = 1.0
"""Milliseconds, Horovod's own default: what is to be sent waits for the next look."""
BESIDE = 10.0
"""Where it has nothing to carry in a step: it broadcasts and evaluates, and a look costs the core that computes."""


def cycle_time_ms(spec: Mapping[str, Any]) -> float:
    """``HOROVOD_CYCLE_TIME`` of a job, in milliseconds: what the spec says, else by what Horovod carries.

    ``spec`` is as spec.json holds it; what it leaves out has the spec's own default.
    """
    communication = spec.get("communication", {})
    said = communication.get("cycle_time_ms")
    if said is not None:
        return float(said)
    # What is saved is agreed on over Horovod in every step, and no step would be shorter than a cycle.
    is_idle = communication.get("transport") in ("gloo", "tcp") and spec.get("checkpoint") is None
    return BESIDE if is_idle else HOROVODS
