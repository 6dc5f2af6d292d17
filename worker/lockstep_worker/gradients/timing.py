"""``Stopwatch`` of the first steps: when gradients are there, when parameters are used first, how long pieces take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from torch import Tensor

from lockstep_worker.gradients import guards
from lockstep_worker.gradients.entry import Entry
from lockstep_worker.gradients.link import fit
from lockstep_worker.gradients.plan import Measured


class Stopwatch:
    """Of one rank. Times of a later step take the place of those of an earlier one; pieces' durations add up.

    A first use is told since the first of all in its step: a forward pass that nobody watched (an evaluation came
    first) leaves what is known of the one before.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._released: dict[int, float] = {}
        self._used: dict[int, float] = {}
        self._samples: list[tuple[int, float]] = []
        self._watched: dict[int, tuple[int, Tensor]] = {}
        self._entry = Entry(self.unwatch, self._all_touched)
        self._first: float | None = None
        """When this step's forward pass used its first parameter."""

    def begin(self) -> None:
        """The backward pass begins."""
        self._began = time.perf_counter()

    def released(self, number: int) -> None:
        """A gradient is there."""
        self._released[number] = time.perf_counter() - self._began

    def watch(self, parameters: Iterable[tuple[int, Tensor]]) -> None:
        """Notes the first use of each, as its guard tells."""
        self._first = None
        for number, parameter in parameters:
            if guards.can_guard(parameter):
                self._watched[id(parameter)] = (number, parameter)
                guards.guard(parameter, self._touched)
        self._entry.watch(parameter for _, parameter in list(self._watched.values()))

    def unwatch(self) -> None:
        """Looks no more."""
        self._entry.leave()
        for _, parameter in list(self._watched.values()):  # another thread may touch one meanwhile
            guards.release(parameter)
        self._watched.clear()

    def sent(self, pieces: Sequence[Tensor], issued: Sequence[float], completed: Sequence[float]) -> None:
        """A step's pieces have been sent, one after another on one link."""
        for piece, seconds in enumerate(link_seconds(issued, completed)):
            self._samples.append((pieces[piece].numel() * pieces[piece].element_size(), seconds))

    def forget(self) -> None:
        """The link is to be measured anew; of the times in a step later ones take the place of those known."""
        self._samples.clear()

    def measured(self) -> Measured:
        """What is known by now."""
        return Measured(dict(self._released), dict(self._used), fit(self._samples))

    def _all_touched(self, parameters: Sequence[Tensor]) -> None:
        for one in parameters:
            self._touched(one)

    def _touched(self, parameter: Tensor) -> None:
        guards.release(parameter)
        number, _ = self._watched.pop(id(parameter), (None, None))
        if number is None:
            return  # another thread was here first
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        self._used[number] = now - self._first
        if not self._watched:
            self._entry.leave()


def link_seconds(issued: Sequence[float], completed: Sequence[float]) -> list[float]:
    """How long each piece had the link, by its number: from when it was issued, or the one before it had arrived."""
    found = [0.0] * len(completed)
    last = 0.0
    for piece in sorted(range(len(completed)), key=lambda one: completed[one]):
        found[piece] = completed[piece] - max(issued[piece], last)
        last = completed[piece]
    return found
