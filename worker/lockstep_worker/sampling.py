"""``Sampler``: the node's ``usage`` records, made in the writer process every few seconds (standard library only).

A rank's wrapper says by a note on its connection where its training is; the training itself is asked nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lockstep_worker.usage import cpu_seconds, interface_bytes, processes

EVERY = 5.0
"""Seconds between two samples."""
SHARE = 0.01
"""Of one CPU's time, what sampling may cost; a node with very many processes is sampled more seldom."""
SHORTEST = 1.0
"""Seconds over which a rate is taken at least: what follows a sample sooner is measured from the one before it."""
_NOTE = b"\0"


@dataclass(frozen=True)
class Beginning:
    """What is known when a training begins: its use is counted from there, whichever writer counts it."""

    at: float
    """``time.monotonic()`` of its node."""
    interface: str | None
    """One rank of a node names it: its bytes are the node's, not a rank's."""
    carried: tuple[int, int] | None
    """Bytes received and sent through that interface by then; None where there is none."""


def begins(interface: str | None) -> Beginning:
    """A training that begins now."""
    return Beginning(time.monotonic(), interface, interface_bytes(interface) if interface is not None else None)


def started(*, rank: int, pid: int, spared: list[int], beginning: Beginning) -> bytes:
    """The note of the wrapper ``pid``, whose children but ``spared`` are the training that had this beginning."""
    return _NOTE + json.dumps({"rank": rank, "pid": pid, "spared": spared, **beginning.__dict__}).encode()


def ended(cpu_s: float) -> bytes:
    """The note that the training has ended, and what CPU time it took in all, by the kernel's account (seconds)."""
    return _NOTE + json.dumps({"cpu_s": cpu_s}).encode()


@dataclass(frozen=True)
class _Reading:
    at: float
    cpu_s: float
    received: int
    sent: int


@dataclass
class _Watch:
    """One rank that is being sampled; of its readings, the first and the last three are kept."""

    rank: int
    root: int
    spared: frozenset[int]
    interface: str | None
    readings: list[_Reading] = field(default_factory=list)


class Sampler:
    """Takes the wrappers' notes, by connection, and makes records of what it reads.

    ``numbers``: by rank the number of the last record that a writer before this one has made.
    """

    def __init__(
        self, node: str, clock: Callable[[], float] = time.monotonic, numbers: Mapping[int, int] | None = None
    ) -> None:
        self._node = node
        self._clock = clock
        self._numbers = dict(numbers or {})
        self._watches: dict[Hashable, _Watch] = {}
        self._due = 0.0

    @staticmethod
    def is_note(packet: bytes) -> bool:
        """Whether a packet is a wrapper's note and no report."""
        return packet.startswith(_NOTE)

    def note(self, connection: Hashable, packet: bytes) -> list[bytes]:
        """Takes a note; returns the records that follow from it. One that cannot be read costs a line and nothing."""
        try:
            told = json.loads(packet[len(_NOTE) :])
            watch = self._watches.get(connection)
            if "pid" in told:
                interface, carried = told["interface"], told["carried"]
                if interface is not None and (carried is None or interface_bytes(interface) is None):
                    print(f"lockstep: {self._node} has no interface {interface}, its bytes are not counted",
                          file=sys.stderr, flush=True)  # fmt: skip
                    interface = None
                received, sent = carried or (0, 0)
                first = _Reading(min(float(told["at"]), self._clock()), 0.0, int(received), int(sent))
                watch = _Watch(int(told["rank"]), int(told["pid"]), frozenset(told["spared"]), interface, [first])
                if not self._watches:
                    self._due = self._clock() + EVERY
                self._watches[connection] = watch
            elif watch is not None:
                del self._watches[connection]
                return [self._record(watch, float(told["cpu_s"]))]
        except (ValueError, KeyError, TypeError) as error:
            print(f"lockstep: a note of {len(packet)} bytes cannot be read: {error!r}", file=sys.stderr, flush=True)
        return []

    def forget(self, connection: Hashable) -> None:
        """The wrapper has gone."""
        self._watches.pop(connection, None)

    def sample(self) -> list[bytes]:
        """One record for each rank when it is time for that, else none."""
        began = self._clock()
        if not self._watches or began < self._due:
            return []
        watches = list(self._watches.values())
        totals = cpu_seconds(processes(), [(watch.root, watch.spared) for watch in watches])
        records = [self._record(watch, total) for watch, total in zip(watches, totals)]  # noqa: B905 - 3.9
        ends = self._clock()
        self._due = max(began + EVERY, ends + (ends - began) / SHARE)
        return records

    def _read(self, watch: _Watch, cpu_s: float) -> None:
        before = watch.readings[-1]
        carried = interface_bytes(watch.interface) if watch.interface else None
        received, sent = carried or (before.received, before.sent)  # of an interface that is gone, as it was
        # Never less than before: a process that ended without being waited for takes its time with it.
        watch.readings.append(_Reading(self._clock(), max(cpu_s, before.cpu_s), received, sent))
        del watch.readings[1:-3]

    def _record(self, watch: _Watch, cpu_s: float) -> bytes:
        self._read(watch, cpu_s)
        number = self._numbers[watch.rank] = self._numbers.get(watch.rank, 0) + 1
        first, now = watch.readings[0], watch.readings[-1]
        before = next((one for one in reversed(watch.readings[:-1]) if now.at - one.at >= SHORTEST), first)
        passed = max(now.at - before.at, 1e-3)
        values: dict[str, Any] = {
            "node": self._node,
            "elapsed_s": round(now.at - first.at, 3),
            "cpu_s": round(now.cpu_s, 3),
            "cpus": round((now.cpu_s - before.cpu_s) / passed, 3),
        }
        if watch.interface:
            values["interface"] = watch.interface
            values.update(_bytes(first, before, now, passed))
        record = {
            "rank": watch.rank, "time": round(time.time(), 6), "kind": "usage", "step": number, "values": values,
        }  # fmt: skip
        return json.dumps(record, separators=(",", ":")).encode()


def _bytes(first: _Reading, before: _Reading, now: _Reading, passed: float) -> Mapping[str, float]:
    return {
        "received_bytes": now.received - first.received,
        "sent_bytes": now.sent - first.sent,
        "received_bytes_per_s": round((now.received - before.received) / passed, 1),
        "sent_bytes_per_s": round((now.sent - before.sent) / passed, 1),
    }
