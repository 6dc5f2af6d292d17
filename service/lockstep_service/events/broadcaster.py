"""``Broadcaster``: from a commit, on any thread, to the streams that are open on the server's event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal

_MOST_CHANGES = 1000


@dataclass(frozen=True)
class Change:
    """What a transaction changed of a job."""

    job_id: str
    kind: Literal["job", "metrics"]


class Subscription:
    """What one stream has not sent yet.

    Changes are kept as a set of what to look at again, not as a queue of messages: a slow reader gets fewer and newer
    events, and takes a bounded memory. What does not fit into the set is left out: a reader that is told of a thousand
    changed jobs looks at its list anew.
    """

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._pending: dict[Change, None] = {}
        self._arrived = asyncio.Event()
        self.told_at = time.monotonic()
        """When the last change arrived, or else when it began to listen: what is looked up later, has all of that."""

    def notify(self, change: Change) -> None:
        """Takes a change, from any thread."""
        if self.job_id is None or self.job_id == change.job_id:
            try:
                self._loop.call_soon_threadsafe(self._add, change)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise  # else the server has ended, and with it whoever listened

    def _add(self, change: Change) -> None:
        self.told_at = time.monotonic()
        if len(self._pending) < _MOST_CHANGES:
            self._pending[change] = None
        self._arrived.set()

    async def changes(self, seconds: float) -> list[Change]:
        """What changed since the last call; waits for something up to ``seconds``, and then answers with nothing."""
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return []
        self._arrived.clear()
        taken = list(self._pending)
        self._pending.clear()
        return taken


class Broadcaster:
    """Who wants to hear of changes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._subscriptions: set[Subscription] = set()

    def publish(self, change: Change) -> None:
        """Tells everyone whom it concerns; from any thread, after the commit."""
        with self._lock:
            concerned = list(self._subscriptions)
        for subscription in concerned:
            subscription.notify(change)

    @property
    def listeners(self) -> int:
        """How many hear of changes."""
        with self._lock:
            return len(self._subscriptions)

    @contextmanager
    def subscribe(self, job_id: str | None) -> Iterator[Subscription]:
        """Hears of one job, or of all with None, until the block ends."""
        subscription = Subscription(job_id)
        with self._lock:
            self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.discard(subscription)
