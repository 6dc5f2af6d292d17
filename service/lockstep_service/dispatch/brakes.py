"""``Brakes``: what is not to be submitted just now, because Slurm did not answer or will not take more of it. Pure.

Times are seconds of a steady clock, and are handed in.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

EVERYTHING = "everything"
"""The brake on all submits: nobody answered, or Slurm takes nothing of anybody."""


@dataclass
class _Brake:
    until: float
    times: int
    reason: str


@dataclass
class Brakes:
    """Brakes by what they hold: ``EVERYTHING``, or a group of jobs that share a limit of Slurm's.

    A brake is put on for a pause that doubles each time. When that is over, one job may be tried; only when that one
    was taken is the brake off. Threads that submit put brakes on and take them off while others look.
    """

    _on: dict[Hashable, _Brake] = field(default_factory=dict)

    def put_on(self, what: Hashable, reason: str, moment: float, first: float, longest: float) -> float:
        """Puts it on, for ``first`` seconds, or twice as long as the last time; returns until when."""
        known = self._on.get(what)
        if known is not None and known.until > moment:
            return known.until  # several submits that were on their way together are one refusal
        times = 0 if known is None else known.times + 1
        until = moment + min(first * float(2 ** min(times, 16)), longest)
        self._on[what] = _Brake(until, times, reason)
        return until

    def take_off(self, what: Hashable) -> None:
        """Slurm took such a job, or answered."""
        self._on.pop(what, None)

    def is_on(self, what: Hashable) -> bool:
        """Whether it is on; also when its pause is over, and one may be tried."""
        return what in self._on

    def any(self) -> bool:
        """Whether anything is held."""
        return bool(self._on)

    def left(self, what: Hashable, moment: float) -> float:
        """Seconds until one may be tried; 0 where that is now."""
        known = self._on.get(what)
        return 0.0 if known is None else max(0.0, known.until - moment)

    def reason(self, what: Hashable) -> str | None:
        """Why it is on."""
        known = self._on.get(what)
        return None if known is None else known.reason

    def any_group(self) -> bool:
        """Whether a group, and not only everything, is held."""
        return any(what != EVERYTHING for what in self._now())

    def next_try(self, moment: float) -> float | None:
        """Seconds until the next brake lets one through; None where none is on."""
        return min((max(0.0, one.until - moment) for one in self._now().values()), default=None)

    def _now(self) -> dict[Hashable, _Brake]:
        """Those that are on, to be gone through: another thread may put one on meanwhile."""
        return self._on.copy()
