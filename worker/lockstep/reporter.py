"""``Reporter``: hands a rank's records to the node's writer process without ever waiting for it."""

from __future__ import annotations

import errno
import json
import math
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Union

Value = Union[float, int, str, "list[float]"]

CAPACITY = 4096
"""Records that wait in memory while the writer takes none; at 200 bytes each, under 1 MiB."""
PACKET_LIMIT = 32 * 1024
"""Bytes of one record; a larger one is dropped and counted."""
KIND_LIMIT = 64
"""Characters of a record's kind; what is longer is cut."""
FLUSH_AT_EXIT = 1.0
"""Seconds that the end of a training may wait for the writer to take what is queued."""
RETRY_AFTER = 1.0
"""Seconds between two attempts to reach a writer that cannot be reached."""
HEAR_EVERY = 0.2
"""Seconds between two looks at what the writer has written: it writes about as often, and a look costs some 5 µs."""
_ACKNOWLEDGEMENT = 8
"""Bytes in which the writer tells how many of this connection's records it has written so far (little endian)."""
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


class Reporter:
    """One process's connection to the node's writer: a bounded queue before a socket that is never waited for.

    ``path`` is the writer's SOCK_SEQPACKET socket, or None to drop everything. ``start`` is what the ``start`` record
    of this rank says. Order is kept; what did not fit is counted in a ``gap`` record where it is missing. What the
    writer has not yet written is kept, and sent once more to the one that takes the place of a writer that has died.
    """

    def __init__(self, path: str | None, *, rank: int, start: Mapping[str, Value], capacity: int = CAPACITY) -> None:
        self._path = path
        self._rank = rank
        self._start: dict[str, Value] | None = dict(start)
        self._capacity = capacity
        self._queue: deque[bytes] = deque()
        self._dropped = 0
        self._sent: deque[bytes] = deque()
        """Records that the writer has been sent by this connection, and has not yet told to be written."""
        self._written = 0
        self._hear_at = 0.0
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self._stepped_at: float | None = None
        self._stepped: int | None = None
        """Steps completed by then, where that is known."""
        self._each = 1
        """Steps that a record of this rank's stands for."""
        self._lock = threading.RLock()  # re-entrant: a signal handler may report while its own thread is reporting

    def report(
        self,
        step: Any,  # noqa: ANN401 - as of ``plain``
        kind: str,
        values: Mapping[str, Any],
        *,
        pace: bool = True,
    ) -> None:
        """Queues one record and sends what the writer takes at once; ``pace`` fills in a step's time."""
        if self._path is None:
            return
        try:
            values = {str(name): plain(value) for name, value in values.items()}
            step = None if step is None else _whole(step)
        except Exception as error:  # of a script's own objects: no reason to end its training
            print(f"lockstep: a report was dropped, its values cannot be read: {error!r}", file=sys.stderr)
            with self._lock:
                self._dropped += 1
            return
        with self._lock:
            start, self._start = self._start, None
            if start is not None and kind == "start":
                values = {**start, **values}
            elif start is not None:
                self._put(None, "start", start)
            if kind == "step" and pace:
                values = {**self._pace(step, values), **values}
            elif kind == "evaluation":
                self.evaluated(step)
            self._put(step, kind, values)
            self._send()

    def evaluated(self, step: Any = None) -> None:  # noqa: ANN401 - as of ``plain``
        """What this rank did since its last step is not the next step's time; makes no record.

        ``step``: how many steps are completed by now, which a script that reports not every step has to tell.
        """
        try:
            done = None if step is None else _whole(step)
        except Exception:  # of a script's own objects: no reason to end its training
            done = None
        with self._lock:
            if self._stepped_at is None:
                return
            self._stepped_at = time.monotonic()
            if done is not None and self._stepped is not None and done >= self._stepped:  # else it counts epochs
                self._stepped = done
            elif self._each > 1:
                self._stepped = None

    def _pace(self, step: int | None, values: Mapping[str, Value]) -> dict[str, Value]:
        """``seconds`` since this rank's last step, ``samples_per_s`` where ``samples`` are told; none at the first.

        ``samples`` are one step's, and ``seconds`` those of all steps since the last one that was reported; where a
        script tells both, they belong together.
        """
        now = time.monotonic()
        before, self._stepped_at = self._stepped_at, now
        steps = self._steps_until(step)
        if before is None or now <= before:
            return {}
        if "seconds" in values:
            steps = 1
        seconds = values.get("seconds", now - before)
        pace: dict[str, Value] = {"seconds": seconds}
        samples = values.get("samples")
        if isinstance(samples, (int, float)) and isinstance(seconds, (int, float)) and seconds > 0 and steps:
            pace["samples_per_s"] = _finite(samples * steps / seconds)
        return pace

    def _steps_until(self, step: int | None) -> int | None:
        """Steps since the last one that was reported; None where an evaluation came between nobody knows which."""
        before, self._stepped = self._stepped, step
        if step is None:
            return 1
        if before is None:
            return 1 if self._each == 1 else None
        if step > before:
            self._each = step - before
        return self._each  # one that counts anew, in each epoch as it may be, goes on as before

    def close(self, deadline: float = FLUSH_AT_EXIT) -> None:
        """Gives the writer ``deadline`` seconds to take what is queued, then closes; what is left over is lost."""
        ends = time.monotonic() + deadline
        with self._lock:
            while self._path is not None:
                self._send()
                if not self._queue and self._dropped:
                    self._put_gap()
                    self._send()
                remaining = ends - time.monotonic()
                if not self._queue or remaining <= 0:
                    break
                if self._socket is None:
                    time.sleep(min(0.05, remaining))  # until the writer can be reached again
                    self._retry_at = 0.0
                else:
                    select.select([], [self._socket], [], remaining)
            if self._queue:
                print(f"lockstep: rank {self._rank}: {len(self._queue)} records were not taken", file=sys.stderr)
            self._disconnect()
            self._queue.clear()
            self._path = None

    def _put(self, step: int | None, kind: str, values: Mapping[str, Value]) -> None:
        if len(self._queue) >= self._capacity:
            self._send()
        if len(self._queue) >= self._capacity:
            self._dropped += 1
            return
        packet = self._packet(step, kind, values)
        if len(packet) > PACKET_LIMIT:
            self._dropped += 1
            print(f"lockstep: a report of {len(packet)} bytes is over {PACKET_LIMIT} and was dropped", file=sys.stderr)
            return
        if self._dropped:
            self._put_gap()
        self._queue.append(packet)

    def _put_gap(self) -> None:
        self._queue.append(self._packet(None, "gap", {"dropped": self._dropped}))
        self._dropped = 0

    def _packet(self, step: int | None, kind: str, values: Mapping[str, Value]) -> bytes:
        record = {
            "rank": self._rank,
            "time": round(time.time(), 6),
            "kind": str(kind)[:KIND_LIMIT] or "step",
            "step": step,
            "values": values,
        }
        return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()

    def _send(self) -> None:
        """Sends from the head of the queue until the socket would block."""
        if self._sent and time.monotonic() >= self._hear_at:
            self._hear()
        while self._queue and (connection := self._connected()) is not None:
            try:
                connection.send(self._queue[0], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno not in _FULL:
                    self._disconnect()
                return
            self._sent.append(self._queue.popleft())

    def _hear(self) -> None:
        """Forgets what the writer has written; notices that it has died."""
        self._hear_at = time.monotonic() + HEAR_EVERY
        try:
            while self._socket is not None:
                told = self._socket.recv(_ACKNOWLEDGEMENT, socket.MSG_DONTWAIT)
                if len(told) < _ACKNOWLEDGEMENT:
                    self._disconnect()
                    return
                written = int.from_bytes(told, "little")
                while self._sent and self._written < written:
                    self._sent.popleft()
                    self._written += 1
        except OSError as error:
            if error.errno not in _FULL:
                self._disconnect()

    def _connected(self) -> socket.socket | None:
        """The connection, made anew where there is none and the last attempt was long enough ago."""
        if self._socket is None and time.monotonic() >= self._retry_at and self._path is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            connection.setblocking(False)  # noqa: FBT003 - also a connect must not wait, when the writer's backlog is full
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                self._retry_at = time.monotonic() + RETRY_AFTER
            else:
                self._socket = connection
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._queue.extendleft(reversed(self._sent))
        self._sent.clear()
        self._written = 0
        self._retry_at = time.monotonic() + RETRY_AFTER


def plain(value: Any) -> Value:  # noqa: ANN401 - whatever a training script has in hand
    """``value`` as a record carries it: a number, a text, or a flat list; NaN and infinities are their texts."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(int(value))
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, (list, tuple)):
        # A matrix becomes its elements row by row: a record holds no lists of lists.
        parts = [plain(item) for item in value]
        return [one for part in parts for one in (part if isinstance(part, list) else [part])]  # type: ignore[misc]
    try:
        # An array, a tensor, or one of their scalars; else whatever has a value as a number.
        return plain(value.tolist()) if hasattr(value, "tolist") else _finite(float(value))
    except (TypeError, ValueError, OverflowError):
        return str(value)


def _whole(step: Any) -> int | None:  # noqa: ANN401 - as of ``plain``
    """A step as a whole number of 64 bits, from whatever counts it (a float, a NumPy integer, a tensor); else None."""
    try:
        found = int(step)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if -(2**63) <= found < 2**63 else None


def _finite(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return float(value) if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
