"""The least communication that any order of sending can leave exposed, of a training that is otherwise as it is. Pure.

Of the parameters in the order of their first use in the forward pass, whatever the order of sending, the first k can
be used no earlier than all k have crossed the link, which begins with the earliest of their gradients. What of that
neither the rest of the backward pass nor the forward pass before k hides is exposed, for each k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One parameter, as a step without communication has it."""

    size: int
    """Bytes of its gradient."""
    released: float
    """Seconds from its gradient to the end of the backward pass."""
    used: float
    """Seconds from the beginning of the forward pass to its first use."""
    update: float = 0.0
    """Seconds of its own update, which is done before its use: those before it give the link time as well."""


def least_exposed(layers: Sequence[Layer], per_byte: float) -> float:
    """Seconds of a step, zero at least; ``per_byte``: seconds of the link a byte, as measured of all gradients alone.

    The maximum over k of (what the first k take on the link - from the earliest of their gradients to the end of the
    backward pass - the forward pass, with its updates, before k).
    """
    worst = sent = updated = 0.0
    earliest = 0.0
    for layer in sorted(layers, key=lambda one: one.used):
        sent += layer.size * per_byte
        earliest = max(earliest, layer.released)
        worst = max(worst, sent - earliest - layer.used - updated)
        updated += layer.update
    return worst
