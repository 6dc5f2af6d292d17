"""``Drift``: whether steps are still what they were when the plan was chosen. Pure: it is told what each step took."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

WINDOW = 50
"""Steps whose medians are compared; the first ones behind a choice are what the later ones are compared with."""
SHARE = 0.1
"""Of a step: a change below it is none."""
FACTOR = 1.5
"""By which the link's busy time has to have changed, up or down."""
SPREADS = 3.0
"""Times the usual deviation of a step from its window's median, below which a change is noise."""
TWICE = 2
"""Windows in a row that have to have changed."""
MOST_PATIENCE = 64
"""Windows at most until a rank may want a new plan: they double where measuring again has settled nothing."""


@dataclass(frozen=True)
class Window:
    """Medians of a window's steps, in seconds, and the median deviations from them."""

    exposed: float
    busy: float
    step: float
    exposed_spread: float
    busy_spread: float


class Drift:
    """Of one rank. ``wants``: whether this rank wants all to measure again; it stays so until ``restart``."""

    def __init__(self, window: int = WINDOW) -> None:
        self.wants = False
        self.window = window
        self._reference: Window | None = None
        self._steps: list[tuple[float, float, float]] = []
        self._changed = 0
        self._windows = 0
        """Since the plan was chosen."""
        self._patience = TWICE

    def note(self, exposed: float, busy: float, step: float) -> None:
        """A step: its wait for gradients, the time in which the link was busy, and what it took, in seconds."""
        self._steps.append((exposed, busy, step))
        if len(self._steps) < self.window:
            return
        found = _window(self._steps)
        self._steps.clear()
        if self._reference is None:
            self._reference = found
            return
        self._windows += 1
        self._changed = self._changed + 1 if changed(self._reference, found) else 0
        if self._changed >= TWICE and self._windows >= self._patience:
            self.wants = True

    def restart(self) -> None:
        """A plan was chosen: what its first steps take is what later ones are compared with."""
        if self.wants:
            soon = self._windows <= 2 * self._patience
            self._patience = min(2 * self._patience, MOST_PATIENCE) if soon else TWICE
        self.wants = False
        self._reference, self._changed, self._windows = None, 0, 0
        self._steps.clear()


def changed(before: Window, now: Window) -> bool:
    """Whether more is exposed than was, or the link is slower or faster than it was, by more than noise."""
    least = SHARE * before.step
    if now.exposed - before.exposed > max(least, SPREADS * before.exposed_spread):
        return True
    ratio = now.busy / before.busy if before.busy > 0 else 1.0
    return not 1 / FACTOR < ratio < FACTOR and abs(now.busy - before.busy) > max(least, SPREADS * before.busy_spread)


def _window(steps: list[tuple[float, float, float]]) -> Window:
    exposed, busy, step = (statistics.median(one[place] for one in steps) for place in range(3))
    return Window(
        exposed, busy, step,
        statistics.median(abs(one[0] - exposed) for one in steps),
        statistics.median(abs(one[1] - busy) for one in steps),
    )  # fmt: skip
