"""``Counters``: what an exchange cost this rank so far: waiting, updates, pieces under way, bytes.

Cheap, since they count in every step: plain numbers, each written by one thread, or under the exchange's own lock.
"""

from __future__ import annotations

import time

from lockstep_worker.gradients.buffers import Buffers


class Counters:
    """Seconds (of ``time.perf_counter``) and bytes since the start; ``take`` tells what came since it was called."""

    def __init__(self) -> None:
        self.waited = 0.0
        """For gradients, by whoever trains."""
        self.updating = 0.0
        """Computing updates."""
        self.bytes = 0
        """Of gradients averaged."""
        self._under_way: tuple[float, float | None] = (0.0, None)
        """Seconds in which a piece was under way, and since when one is; one object, so that both are of one moment."""
        self._transfer: float | None = None
        """Waited, in the steps that ended since ``take``, by the rank that waited least; None: nothing is known."""
        self._told_at = 0.0
        self._begun = False
        self._tells = False
        """Whether this step's headers tell what each rank has waited: there is room, and a step before it."""
        self._over = 0.0
        """Seconds of transfer that were more than what this rank had waited by then: of the waits that come."""
        self._taken = (0.0, 0.0, 0.0, 0)

    # -- under the exchange's lock -----------------------------------------------------------------------------------

    def departs(self, now: float) -> None:
        """A piece is under way, the only one."""
        self._under_way = (self._under_way[0], now)

    def arrived(self, now: float) -> None:
        """None is any more."""
        seconds, since = self._under_way
        self._under_way = (seconds + now - since if since is not None else seconds, None)

    # -- by the thread that trains -----------------------------------------------------------------------------------

    def begin(self, buffers: Buffers, rank: int, ranks: int) -> None:
        """A step begins: tells the other ranks, with its gradients, how long this one has waited since the last one."""
        self._tells = buffers.tell(self.waited - self._told_at, rank, ranks) and self._begun
        self._told_at, self._begun = self.waited, True

    def end(self, buffers: Buffers, ranks: int) -> None:
        """All is averaged, and so known of all ranks: the one that waited least was the slowest, and waited for none.

        What it waited is what the transfer takes.
        """
        if self._tells:
            self._transfer = (self._transfer or 0.0) + max(0.0, min(buffers.told(ranks)))

    def take(self) -> dict[str, float]:
        """What was counted since the last call, by its names in a record (docs/records.md)."""
        total, since = self._under_way
        if since is not None:
            total += time.perf_counter() - since
        now = (self.waited, self.updating, total, self.bytes)
        waited, updating, under_way, sent = (one - before for one, before in zip(now, self._taken))  # noqa: B905
        self._taken = now
        found = {
            "exposed_s": waited,
            "optimizer_s": updating,
            # The clock is read in two threads: a moment more or less.
            "communication_s": max(0.0, under_way),
            "gradient_bytes": sent,
        }
        # The transfer's part is known a step late: that of the step before stands for it, and what is left of it when
        # this step waited less is taken off the next one's. So the sums are right, whatever the steps are like.
        waiting = waited - self._over - (self._transfer or 0.0)
        self._over = max(0.0, -waiting)
        if self._transfer is not None:
            found["waiting_s"] = max(0.0, waiting)
            self._transfer = None
        return found
