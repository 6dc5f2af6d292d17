"""``Statistics``: where the time of a training's steps goes on this rank, by the names of a record (docs/records.md).

Standard library only. A deferred update waits and computes in the middle of a forward pass: an optimizer that counts
this (``lockstep.DistributedOptimizer``) is asked, and what it did is not counted as the phase in which it did it.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

PHASES = ("data", "forward", "backward", "optimizer", "exposed")
"""What can be timed: getting a batch, the passes, computing updates, waiting for gradients."""


class Statistics:
    """The phases of one rank's steps.

    ``with statistics.timed("forward"): ...`` times one, ``take()`` tells all since it was called before. ``optimizer``
    is asked for ``take_statistics()`` and ``seconds_inside`` where it has them.
    """

    def __init__(self, optimizer: Any = None) -> None:  # noqa: ANN401 - any optimizer
        self._optimizer = optimizer if hasattr(optimizer, "take_statistics") else None
        self._phases: dict[str, Timed] = {}

    def timed(self, phase: str) -> Timed:
        """A context whose time is this phase's; phases do not nest. Raises ``ValueError`` for one that there is not."""
        found = self._phases.get(phase)
        if found is None:
            if phase not in PHASES:
                raise ValueError(f"phase {phase!r} is none of {', '.join(PHASES)}")
            found = self._phases[phase] = Timed(self._optimizer)
        return found

    def take(self) -> dict[str, Any]:
        """Seconds by name (``forward_s``) since the last call, and what the optimizer tells; only what was measured.

        Numbers, as ``lockstep.report(step=step, **statistics.take())`` takes them.
        """
        told: dict[str, Any] = {} if self._optimizer is None else self._optimizer.take_statistics()
        for phase, timed in self._phases.items():
            name = f"{phase}_s"
            told[name] = told.get(name, 0.0) + timed.seconds
            timed.seconds = 0.0
        return told


class Timed:
    """A phase that is entered again and again."""

    def __init__(self, optimizer: Any) -> None:  # noqa: ANN401
        self.seconds = 0.0
        self._optimizer = optimizer
        self._began = 0.0
        self._inside = 0.0

    def __enter__(self) -> None:
        self._inside = 0.0 if self._optimizer is None else self._optimizer.seconds_inside
        self._began = time.perf_counter()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._began
        if self._optimizer is not None:
            seconds -= self._optimizer.seconds_inside - self._inside
        # Another thread may have waited meanwhile, which is no part of this one's time.
        self.seconds += max(0.0, seconds)
