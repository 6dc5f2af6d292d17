"""``Room``: how many requests with records are being taken in. Each holds a thread, and pages need some, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lockstep_service.errors import BusyError


@dataclass
class Room:
    """Counts who is in; of the event loop's own thread alone, so it needs no lock."""

    inside: int = 0

    @contextmanager
    def entered(self, most: int) -> Iterator[None]:
        """Is in for a while; ``BusyError`` where ``most`` are in already."""
        if self.inside >= most:
            raise BusyError(
                f"{self.inside} requests with records are being taken in, which is as many as at once; "
                "send it again after Retry-After. Nothing is lost: the spool has it."
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
