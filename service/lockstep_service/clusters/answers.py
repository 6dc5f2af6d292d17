"""``Answers``: one question about nodes at a time, not again at once after one without answer; and the last answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Event, Lock

from lockstep_service.telemetry.trouble import Trouble
from lockstep_slurm.client.protocol import ClusterAnswer

_PAUSE_AFTER_FAILURE = 5.0
_READ_AGAIN_SECONDS = 1.0
"""Another process may have kept a newer answer by then."""


@dataclass
class Answers:
    """When the cluster was last asked, in this process, and what the database had of its answer a moment ago.

    ``lock`` is held while it is being asked.
    """

    patience: float = 1.0
    """For how many seconds requests wait for the first answer of all, from the first request on."""
    lock: Lock = field(default_factory=Lock)
    failed_at: float | None = None
    """Of ``time.monotonic``."""
    trouble: Trouble = field(default_factory=Trouble)
    """What the log has of questions that nobody answers."""

    wanted: bool = False
    """Whether a newer answer is wanted than the last, however new that one is."""

    kept: ClusterAnswer | None = None
    """What the database had at ``read_at``."""
    read_at: float = 0.0

    _asked: Event = field(default_factory=Event)
    """Set once a question has come to its end, with an answer or without."""
    _waits_until: float | None = None

    def lately(self) -> ClusterAnswer | None:
        """The kept answer, where it was read a moment ago: submissions come by the hundred."""
        return self.kept if time.monotonic() - self.read_at < _READ_AGAIN_SECONDS else None

    def keep(self, answer: ClusterAnswer) -> None:
        """Notes what the database has now."""
        self.kept, self.read_at = answer, time.monotonic()

    def may_ask(self) -> bool:
        """Whether it is polite to ask now."""
        return self.failed_at is None or time.monotonic() - self.failed_at > _PAUSE_AFTER_FAILURE

    def came(self) -> None:
        """A question has come to its end: nobody waits for another."""
        self._asked.set()

    def wait_for_first(self) -> None:
        """Returns when the first question has come to its end, or has taken longer than anybody waits for it."""
        if self._waits_until is None:
            self._waits_until = time.monotonic() + self.patience
        self._asked.wait(max(0.0, self._waits_until - time.monotonic()))
