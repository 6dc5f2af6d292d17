"""``Answers``: one question about nodes at a time, and not again at once after one that was not answered."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock

_PAUSE_AFTER_FAILURE = 5.0


@dataclass
class Answers:
    """When the cluster was last asked, in this process. ``lock`` is held while it is being asked."""

    lock: Lock = field(default_factory=Lock)
    failed_at: float | None = None
    """Of ``time.monotonic``."""

    def may_ask(self) -> bool:
        """Whether it is polite to ask now."""
        return self.failed_at is None or time.monotonic() - self.failed_at > _PAUSE_AFTER_FAILURE
