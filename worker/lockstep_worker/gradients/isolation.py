"""``Isolation``: what communication takes alone, while nothing computes: MLSL's isolation measurement.

Rank by rank the same collectives in the same order, so all ranks call ``measure`` at the same point, with nothing under
way. Before each piece the ranks meet in one of a cache line, so that nobody waits for a slower rank in what is timed.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lockstep_worker.gradients.pieces import HEADER
from lockstep_worker.gradients.transport import POLL, Driven, Transport

SECONDS = 0.5
"""How long it may take in all; one large piece on a slow link may take more."""
ROUNDS = 5
"""Pieces of each size at most, beside a first one that is not counted: it pays for memory and for agreeing."""

FORETELLS = 64 << 10
"""Bytes from which on a piece's time says something of the link, and so of a larger piece."""


@dataclass(frozen=True)
class Isolation:
    """What was measured on this rank. Bytes are those of the gradients, whatever crosses the link for them."""

    piece_bytes: tuple[int, ...]
    """Sizes of which at least one piece was measured, ascending."""
    seconds_per_piece: tuple[float, ...]
    """The median of each of these sizes, from the call to its end as it is seen."""
    latency_s: float
    """Of a piece of one cache line."""
    bytes_per_s: float
    """Of the largest size, without the latency where that is the smaller part; 0.0 where nothing was measured."""


def measure(transport: Transport, sizes: Sequence[int], *, name: str, seconds: float = SECONDS) -> Isolation:
    """Averages pieces of these sizes (bytes, alike on all ranks), one after another, and times them.

    Smallest first, ``ROUNDS`` rounds. The ranks agree before each piece whether there is time for it: whoever expects
    to be over ``seconds`` says so in the small piece before. ``name`` has to be one that no other collective has.
    """
    ends = time.perf_counter() + seconds
    times: dict[int, list[float]] = {size: [] for size in sorted(set(sizes)) if size > 0}
    buffers = {size: torch.zeros(-(-size // 4)) for size in times}
    meeting = torch.zeros(HEADER // 4)
    meetings: list[float] = []
    expected: dict[int, float] = {}
    took = 0.0
    for turn in range(ROUNDS + 1):
        for size, buffer in buffers.items():
            late = time.perf_counter() + _foreseen(expected, size) > ends
            meeting.fill_(1.0 if late else 0.0)
            took = _average(transport, meeting, f"{name}.meeting")
            if turn > 0:
                meetings.append(took)
            if meeting[0].item() > 0:
                return _told(times, expected, meetings or [took])
            expected[size] = _average(transport, buffer, f"{name}.{size}")
            if turn > 0:
                times[size].append(expected[size])
    return _told(times, expected, meetings)


def _foreseen(expected: dict[int, float], size: int) -> float:
    """Seconds that a piece of this size will take: as long as before, or by the largest that was sent.

    Its latency is not taken off, since one meeting does not know it: rather a piece too few than one too long.
    """
    largest = max(expected, default=0)
    if size in expected or largest < FORETELLS:
        return expected.get(size, 0.0)
    return expected[largest] * size / largest


def _told(times: dict[int, list[float]], first: dict[int, float], meetings: list[float]) -> Isolation:
    """Of a size that there was time for once only, that one counts."""
    found = {size: statistics.median(times[size] or [first[size]]) for size in times if size in first}
    latency = statistics.median(meetings)
    largest = max(found, default=0)
    carrying = found.get(largest, 0.0) - latency
    return Isolation(
        piece_bytes=tuple(found),
        seconds_per_piece=tuple(found.values()),
        latency_s=latency,
        # A piece that hardly takes longer than none says little of the link.
        bytes_per_s=largest / (carrying if carrying > latency else found[largest]) if largest else 0.0,
    )


def _average(transport: Transport, buffer: Tensor, name: str) -> float:
    """Averages one, and returns the seconds that it took; sleeps meanwhile."""
    landed = threading.Event()
    began = time.perf_counter()
    handle = transport.start(buffer, name, landed.set)
    while not transport.is_done(handle):
        if isinstance(transport, Driven):
            transport.drive()
        elif transport.calls_back:
            landed.wait()
        else:
            time.sleep(POLL)
    transport.finish(handle, buffer)
    return time.perf_counter() - began
