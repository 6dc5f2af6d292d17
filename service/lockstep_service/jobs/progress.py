"""``KeysInProgress``: the idempotency keys whose first request has not been answered yet, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from lockstep_service.errors import InProgressError


class KeysInProgress:
    """Which keys are in use this moment. Between processes, the database's own rule that a key is there once holds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: set[str] = set()

    @contextmanager
    def claimed(self, key: str | None) -> Iterator[None]:
        """Nobody else has the key until the block ends; ``InProgressError`` where somebody has it now."""
        if key is None:
            yield
            return
        with self._lock:
            if key in self._keys:
                raise InProgressError(
                    f"A request with the Idempotency-Key {key!r} is being answered now; send it again in a moment."
                )
            self._keys.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard(key)
