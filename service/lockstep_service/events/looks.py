"""``Looks``: one look at a job serves all the streams that follow it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from anyio import to_thread

T = TypeVar("T")


class Looks(Generic[T]):
    """Looks by the thing that is looked at; for the event loop alone."""

    def __init__(self, keep_seconds: float = 0.5) -> None:
        self._keep = keep_seconds
        self._kept: dict[str, tuple[float, asyncio.Task[T]]] = {}

    async def at(self, key: str, since: float, look: Callable[[T | None], T]) -> T:
        """What ``look``, in a thread, found at ``key``: now, or for another a moment ago, but not before ``since``.

        ``since`` is of ``time.monotonic``; ``look`` is given what it found the last time, if that is still known.
        """
        kept = self._kept.get(key)
        if kept is None or kept[0] < since or time.monotonic() - kept[0] > self._keep:
            before = kept[1] if kept is not None else None
            known = before.result() if before is not None and _went_well(before) else None
            kept = time.monotonic(), asyncio.create_task(to_thread.run_sync(look, known))
            self._kept[key] = kept
        # Shielded: a reader that goes away must not take the look from the others.
        return await asyncio.shield(kept[1])

    @contextmanager
    def following(self, key: str) -> Iterator[None]:
        """Afterwards nothing is kept of ``key``; whoever still follows it looks anew."""
        try:
            yield
        finally:
            self._kept.pop(key, None)

    def __len__(self) -> int:
        return len(self._kept)


def _went_well(task: asyncio.Task[T]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
