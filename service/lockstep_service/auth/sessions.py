"""Browsers' sessions: what their signed cookies hold, and which of them were closed before their time."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from lockstep_service.auth.service import KeyFileError, Keys, same
from lockstep_slurm.job.writing import write_whole


class Sessions:
    """A session is its cookie, signed; what is kept here is only which were closed, for as long as they could live.

    So a cookie that somebody copied is worth nothing after its owner has signed out, also not after a restart.
    """

    def __init__(self, home: Path, keys: Keys, days: int, clock: Callable[[], float] = time.time) -> None:
        self._file = home / "signed-out.json"
        self._keys = keys
        self._seconds = days * 86_400
        self._clock = clock
        self._lock = Lock()
        self._closed = self._read()

    def begin(self) -> dict[str, str]:
        """What a new session's cookie holds."""
        return {"user": self._keys.user, "of": self._keys.fingerprint, "id": secrets.token_urlsafe(12)}

    def user(self, session: Mapping[str, Any]) -> str | None:
        """Whose session it is; None for one that was never opened, is of an older token, or was closed."""
        known = same(str(session.get("of", "")), self._keys.fingerprint) and isinstance(session.get("id"), str)
        return str(session["user"]) if known and session["id"] not in self._closed else None

    def close(self, session: Mapping[str, Any]) -> None:
        """Ends the session for whoever has its cookie."""
        if self.user(session) is None:
            return
        with self._lock:
            moment = self._clock()
            kept = {name: until for name, until in self._closed.items() if until > moment}
            self._closed = kept | {session["id"]: moment + self._seconds}
            write_whole(self._file, json.dumps(self._closed))

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self._file.read_text("utf-8"))
            return {str(name): float(until) for name, until in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise KeyFileError(
                f"{self._file} cannot be read ({error}): delete it, and {self._file.with_name('session.key')} as well, "
                "so that no session that was closed is open again."
            ) from None
