"""``Clock``: the clocks by which the service goes, which a test moves on, so that an hour takes no time."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, tzinfo
from types import SimpleNamespace

import pytest

from lockstep_service import wire


class Clock:
    """``time.monotonic``, ``time.time`` and ``wire.now`` of this process are ``ahead`` seconds ahead of the real ones.

    What a file system says of its files is not moved.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monotonic, since_epoch = time.monotonic, time.time

        def moved(zone: tzinfo) -> datetime:
            return datetime.now(zone) + timedelta(seconds=self.ahead)

        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self.ahead)
        monkeypatch.setattr(time, "time", lambda: since_epoch() + self.ahead)
        monkeypatch.setattr(wire, "datetime", SimpleNamespace(now=moved, fromtimestamp=datetime.fromtimestamp))

    def move(self, seconds: float) -> None:
        """Lets so much time pass."""
        self.ahead += seconds
