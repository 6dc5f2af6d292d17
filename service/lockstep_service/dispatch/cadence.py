"""How long to wait between two bulk questions to Slurm: less while things move, more where asking is dear. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_SLOWER = 1.5
_SHARE = 20
"""A question that Slurm takes a second to answer is asked every 20 s at most: it has others to answer."""
_WOKEN_SHARE = 5
_LEAST_GAP_SECONDS = 1.0
_MOST_TIMES = 12
"""How many times ``most`` a pause may become because asking is dear."""


@dataclass(frozen=True)
class Cadence:
    """Between ``least`` seconds, while something moves, and ``most``, when nothing has for a while."""

    least: float
    most: float

    def pause(self, before: float, *, moved: bool, cost: float) -> float:
        """Seconds to the next question, after a pause of ``before``, when the last took ``cost`` seconds to answer."""
        most = max(self.least, self.most)
        plain = self.least if moved else min(max(before * _SLOWER, self.least), most)
        return max(plain, min(cost * _SHARE, most * _MOST_TIMES))

    def gap(self, cost: float) -> float:
        """Seconds that have to pass between two questions even where something calls for the next one."""
        return max(min(_LEAST_GAP_SECONDS, self.least), min(cost * _WOKEN_SHARE, max(self.least, self.most)))
