"""Cases of what is measured: communication alone, and what each step's communication cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import horovod.torch as hvd
from torch import Tensor

from lockstep_worker.gradients.isolation import Isolation, measure
from lockstep_worker.gradients.transport import HorovodTransport


class Slow(HorovodTransport):
    """A link that carries one piece after another, at ``seconds_per_byte`` on top of what it takes anyway."""

    def __init__(self, name: str, seconds_per_byte: float) -> None:
        super().__init__(name)
        self._per_byte = seconds_per_byte
        self._free_at = 0.0
        self._ends: dict[int, float] = {}
        """By handle."""

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> int:
        handle = super().start(buffer, name, landed)
        size = buffer.numel() * buffer.element_size()
        self._free_at = max(self._free_at, time.perf_counter()) + size * self._per_byte
        self._ends[handle] = self._free_at
        return handle

    def is_done(self, handle: int) -> bool:
        return super().is_done(handle) and time.perf_counter() >= self._ends[handle]


def isolation() -> None:
    """The link's own speed, within what was asked for; how much is measured is the same on all ranks."""
    link = Slow("isolation", 1 / 4e6)
    sizes = (1 << 19, 1 << 16)
    found = measure(link, sizes, name="isolation.enough")
    assert found.piece_bytes == (1 << 16, 1 << 19)
    assert found.latency_s < 0.1
    small, large = found.seconds_per_piece
    assert large >= (1 << 19) / 4e6
    assert small < large
    assert 2e6 < found.bytes_per_s < 5e6, found  # less latency, which overlaps with this link's time
    assert found.seconds(1 << 20) > 0.9 * (1 << 20) / 4e6
    # The small piece takes 16 ms, and there is time for it; the large one 131 ms.
    brief = measure(link, sizes, name="isolation.brief", seconds=0.5 if hvd.rank() else 0.06)
    assert brief.piece_bytes == (1 << 16,), brief
    # One rank has no time at all, so all have none.
    none = measure(link, sizes, name="isolation.none", seconds=0.0 if hvd.rank() else 1.0)
    assert none == Isolation((), (), none.latency_s, 0.0)
    assert alike([one.piece_bytes for one in (found, brief, none)])
    assert asdict(none).keys() == {"piece_bytes", "seconds_per_piece", "latency_s", "bytes_per_s"}


def alike(fact: Any) -> bool:
    """Whether all ranks have the same."""
    facts = hvd.allgather_object(fact)
    return all(other == facts[0] for other in facts)


CASES: dict[str, Callable[[], None]] = {function.__name__.replace("_", " "): function for function in (isolation,)}
