"""``Told``: one step record, as it is kept of the newest steps. Values in, values out."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from lockstep_service.metrics.pace import Pace
from lockstep_service.metrics.record import Value, number

COMPUTED = ("forward_s", "backward_s", "optimizer_s", "data_s")
"""The parts of a step in which a rank works, in seconds."""
TIMES = ("seconds", *COMPUTED, "exposed_s", "waiting_s", "communication_s")
"""What a step record says of where its time went (docs/records.md), in seconds.

``waiting_s`` is a part of ``exposed_s``; ``communication_s`` goes on beside all others."""
TOLD = (*TIMES, "gradient_bytes")
"""And how much went to the other ranks meanwhile."""


class Told(Struct, array_like=True, frozen=True, gc=False):
    """A step record's place, and its values as they came: they are looked at only where a figure of now is made."""

    step: int | None
    seq: int
    time: float
    values: dict[str, Value]

    @property
    def pace(self) -> Pace:
        """What it says of speed."""
        return Pace.of(self.values)

    def figure(self, name: str) -> float | None:
        """One of its values; None where it is no finite number."""
        return number(self.values.get(name))

    def brief(self, names: Sequence[str]) -> Told:
        """With those values alone that have one of these names."""
        kept: dict[str, Value] = {}
        for name in names:
            if name in self.values:
                found = number(self.values[name])
                kept[name] = "NaN" if found is None else found
        return Told(self.step, self.seq, self.time, kept)
