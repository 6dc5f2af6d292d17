"""Waiting for a condition that another process makes true, never without a limit (standard library only)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lockstep_worker.errors import MeetingError

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds that ranks wait for each other: nodes of one job may start minutes apart (prologs, cold file systems)."""
POLL_FROM, POLL_TO = 0.02, 0.5


def until(condition: Callable[[], T | None], sentence: Callable[[], str], patience: float | None = None) -> T:
    """Asks ``condition`` until it answers anything but None, at growing intervals; then returns that.

    Raises ``MeetingError`` with ``sentence()`` when it has not within ``patience`` seconds.
    """
    limit = PATIENCE if patience is None else patience
    ends, interval = time.monotonic() + limit, POLL_FROM
    while True:
        found = condition()
        if found is not None:
            return found
        if time.monotonic() >= ends:
            raise MeetingError(f"{sentence()} within {limit:g} s")
        time.sleep(interval)
        interval = min(interval * 1.5, POLL_TO)
