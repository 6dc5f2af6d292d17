"""``Trouble``: what to log of something that is tried every few seconds and fails for hours. Pure: no clock, no log."""

from __future__ import annotations

from dataclasses import dataclass, field

AGAIN_SECONDS = 600.0


@dataclass
class Trouble:
    """One thing that may fail again and again: it is said at once, when it fails otherwise, and now and then.

    Moments are seconds of a clock that never goes back, as ``time.monotonic``.
    """

    again: float = AGAIN_SECONDS
    """Seconds after which a failure that lasts is said once more."""
    _since: float | None = None
    _said_at: float = 0.0
    _said: set[str] = field(default_factory=set)
    """The reasons since it was last said how long it lasts: two that take turns are no news each time."""

    def failed(self, why: str, at: float) -> str | None:
        """What to say of a failure at ``at``: why and, after the first, since how long; None where that was said."""
        if self._since is None:
            self._since, self._said_at, self._said = at, at, {why}
            return why
        if at - self._said_at >= self.again:
            self._said.clear()
        if why in self._said:
            return None
        self._said.add(why)
        self._said_at = at
        return f"{why} (it has failed for {lasting(at - self._since)})"

    def went_well(self, at: float) -> str | None:
        """How long it had failed, such as ``12 min``; None where it had not."""
        if self._since is None:
            return None
        lasted = lasting(at - self._since)
        self._since = None
        return lasted


def lasting(seconds: float) -> str:
    """A duration in one unit, such as ``40 s``, ``12 min`` or ``3 days``."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
