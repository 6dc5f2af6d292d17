"""``Shipper``: sends a spool's lines to the service, in a thread of the writer process that nothing waits for.

It reads from the spool itself, from the last acknowledged byte on, so that it holds one chunk in memory and no outage
loses a record (standard library only).
"""

from __future__ import annotations

import gzip
import http.client
import json
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CHUNK = 256 * 1024
"""Bytes of spool in one request."""
INTERVAL = 1.0
"""Seconds between two looks at the spool while all is well."""
TIMEOUT = 5.0
"""Seconds for one answer."""
BACKOFF_FROM, BACKOFF_TO = 0.5, 30.0
"""Seconds to wait after a failure, doubled each time."""


class ShippingError(Exception):
    """One request that did not do; it is tried again, not before ``after`` seconds where the service said so."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Target:
    """Where a job's records go: from ``report.json``."""

    url: str
    token: str
    job_id: str

    @classmethod
    def read(cls, run: Path) -> Target | None:
        """What ``report.json`` says now, or None where there is none, or the spec wants files: nothing is shipped."""
        if by_files(run):
            return None
        try:
            document = json.loads((run / "report.json").read_text(encoding="utf-8"))
            return cls(str(document["url"]).rstrip("/"), str(document["token"]), run.name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ShippingError(f"report.json cannot be used: {error}") from error

    def post(self, lines: bytes, timeout: float) -> dict[str, int]:
        """POSTs whole lines; returns the highest contiguous ``seq`` by ``<attempt>/<rank>``, or ``ShippingError``."""
        parts = urlsplit(self.url)
        # http.client and not urllib: it follows no proxy variable that the environment may have for other ends.
        connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=timeout)
        )
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "gzip",
        }
        try:
            connection.request(
                "POST", f"{parts.path}/api/v1/jobs/{self.job_id}/records", gzip.compress(lines, 1), headers
            )
            response = connection.getresponse()
            body = response.read(1 << 20)
            if response.status // 100 != 2:
                after = retry_after(response.getheader("Retry-After"))
                raise ShippingError(f"the service answered {response.status} {response.reason}", after)
            return {str(key): int(seq) for key, seq in json.loads(body)["acknowledged"].items()}
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShippingError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()


class Shipper:
    """Ships one spool until told to finish. ``offset`` is the byte up to which everything is acknowledged."""

    def __init__(self, run: Path, spool: Path) -> None:
        self.offset = 0
        self.error: str | None = None
        """Why the last request did not do; None while all is well."""
        self._run = run
        self._spool = spool
        self._ends_at: float | None = None
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._ship, name="shipping", daemon=True)

    def start(self) -> None:
        """Starts the thread; a daemon, so that it never keeps the process."""
        self._thread.start()

    def finish(self, seconds: float) -> bool:
        """Tries to ship the remainder for at most ``seconds``; returns whether everything is acknowledged."""
        self._ends_at = time.monotonic() + seconds
        self._wake.set()
        self._thread.join(seconds)
        return self.offset == self._spool.stat().st_size

    def _ship(self) -> None:
        backoff = BACKOFF_FROM
        target = None
        while True:
            last_round = self._ends_at is not None
            wait = INTERVAL
            try:
                # Read again after each failure: a service that was started again may have another address.
                target = target or Target.read(self._run)
                more = target is not None and self._ship_chunk(target)
                self.error, backoff = None, BACKOFF_FROM
                if more:
                    continue
                if last_round:
                    return
                if target is None:
                    wait = BACKOFF_TO
            except (ShippingError, OSError) as error:
                self.error, target = str(error), None
                spread = random.uniform(0.5, 1.0)  # noqa: S311 - spreads the nodes of a job, hides nothing
                after = error.after if isinstance(error, ShippingError) else 0.0
                # What the service asks for is the least: all nodes at that very moment would find it as busy.
                wait = 2 * spread * after if after else spread * backoff
                backoff = min(2 * backoff, BACKOFF_TO)
            if self._ends_at is not None:
                wait = min(wait, 0.5, self._ends_at - time.monotonic())
                if wait <= 0:
                    return
            self._wake.wait(wait)
            self._wake.clear()

    def _ship_chunk(self, target: Target) -> bool:
        """Ships one chunk from ``offset``; returns whether there was something to ship."""
        lines = read_lines(self._spool, self.offset)
        if not lines:
            return False
        timeout = TIMEOUT if self._ends_at is None else max(0.1, min(TIMEOUT, self._ends_at - time.monotonic()))
        acknowledged = target.post(lines, timeout)
        if all(acknowledged.get(key, 0) >= seq for key, seq in last_seqs(lines).items()):
            self.offset += len(lines)
        elif self.offset > 0:
            # The service knows less than it once acknowledged (restored from a backup): everything again.
            self.offset = 0
        else:
            raise ShippingError(f"the service acknowledged {acknowledged} only, with everything sent from the start")
        return True


def by_files(run: Path) -> bool:
    """Whether the run's spec says ``report.transport = "files"``: the service reads the spool, and nobody ships it."""
    try:
        spec = json.loads((run / "spec.json").read_text(encoding="utf-8"))
        return bool(spec["report"]["transport"] == "files")
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a spec of an older Lockstep says nothing of it


def retry_after(header: str | None) -> float:
    """Seconds that a ``Retry-After`` header asks for, at most ``BACKOFF_TO``; 0 where it has no number of seconds."""
    return min(float(header), BACKOFF_TO) if header is not None and header.isdecimal() else 0.0


def read_lines(spool: Path, offset: int, limit: int = CHUNK) -> bytes:
    """Whole lines from ``offset`` on, at most ``limit`` bytes of them; a last line without its end is left out."""
    with spool.open("rb") as file:
        file.seek(offset)
        data = file.read(limit)
    return data[: data.rfind(b"\n") + 1]


def last_seqs(lines: bytes) -> Mapping[str, int]:
    """The highest ``seq`` by ``<attempt>/<rank>`` in whole lines."""
    found: dict[str, int] = {}
    for line in lines.splitlines():
        record = json.loads(line)
        found[f"{record['attempt']}/{record['rank']}"] = record["seq"]
    return found
