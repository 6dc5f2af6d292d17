"""One-time codes: what lets a browser in once, in a link that may lie about afterwards."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from lockstep_service.auth.service import token_hash

_MOST = 64
"""Codes that wait to be used; the oldest goes when there are more."""


@dataclass(frozen=True)
class Code:
    """A code, and until when it opens a session, in seconds since the epoch."""

    code: str
    until: float


class Links:
    """The codes that were given out and not yet used; they end with the process, as they do with time.

    ``seconds``: how long one is good for; ``clock``: seconds since the epoch.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._until: dict[str, float] = {}

    def make(self) -> Code:
        """A new code, of 192 random bits."""
        made = Code(secrets.token_urlsafe(24), self._clock() + self._seconds)
        with self._lock:
            while len(self._until) >= _MOST:
                del self._until[next(iter(self._until))]
            self._until[token_hash(made.code)] = made.until
        return made

    def take(self, code: str) -> bool:
        """Whether the code is good; from now on it is not."""
        with self._lock:
            # Found by its hash, so that how long the search takes tells nothing of the code.
            until = self._until.pop(token_hash(code), None)
        return until is not None and self._clock() < until
