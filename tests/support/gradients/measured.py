"""Cases of what is measured: communication alone, and what each step's communication cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import horovod.torch as hvd
import pytest
from torch import Tensor, nn

from lockstep_worker.gradients.buffers import Buffers, size_of
from lockstep_worker.gradients.counters import Counters
from lockstep_worker.gradients.isolation import Isolation, measure
from lockstep_worker.gradients.pieces import lay_out
from lockstep_worker.gradients.transport import HorovodTransport
from lockstep_worker.statistics import Statistics
from support.gradients import models
from support.gradients.special import optimizer_of, trained
from support.gradients.training import backward

SLOW_STEPS = 12
PAUSE = 0.03
"""Seconds that a slow rank or a slow link takes more, in each of them."""


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
    # The small piece takes 16 ms, and there is time for it; the large one 131 ms, eight times as long.
    brief = measure(link, sizes, name="isolation.brief", seconds=0.5 if hvd.rank() else 0.12)
    assert brief.piece_bytes == (1 << 16,), brief
    # One rank has no time at all, so all have none.
    none = measure(link, sizes, name="isolation.none", seconds=0.0 if hvd.rank() else 1.0)
    assert none == Isolation((), (), none.latency_s, 0.0)
    assert alike([one.piece_bytes for one in (found, brief, none)])
    assert asdict(none).keys() == {"piece_bytes", "seconds_per_piece", "latency_s", "bytes_per_s"}


def a_slow_rank_is_waited_for() -> None:
    """What the fast rank waits is waiting for the slow one, and that one waits for nobody."""
    model = models.mlp()
    optimizer = optimizer_of(model, piece_bytes=1 << 20)
    trained(model, optimizer, 6, models.mlp_loss)
    optimizer.complete()
    hvd.barrier()
    optimizer.take_statistics()
    statistics = Statistics(optimizer)
    began = time.perf_counter()
    for step in range(SLOW_STEPS):
        train(model, optimizer, statistics, step, pause=PAUSE if hvd.rank() else 0.0)
    optimizer.complete()
    seconds, told = time.perf_counter() - began, statistics.take()
    optimizer.close()
    assert 0 <= told["waiting_s"] <= told["exposed_s"]
    phases = [told[f"{name}_s"] for name in ("forward", "backward", "optimizer", "exposed")]
    assert min(phases) > 0
    assert sum(phases) < seconds
    assert told["exposed_s"] <= told["communication_s"] <= seconds
    every = hvd.allgather_object((told["exposed_s"], told["waiting_s"], told["forward_s"]))
    (exposed, waiting, forward), (_, waiting_of_slow, forward_of_slow) = every
    assert exposed >= waiting > 0.6 * SLOW_STEPS * PAUSE, every
    assert waiting_of_slow < 0.2 * waiting, every
    assert forward_of_slow > SLOW_STEPS * PAUSE > 2 * forward, every


def a_slow_link_is_not_a_slow_rank() -> None:
    """What both wait is transfer, and no part of the forward pass in which they wait."""
    model = models.mlp()
    size = 4 * sum(one.numel() for one in model.parameters())
    optimizer = optimizer_of(model, transport=Slow("slow", PAUSE / size))
    trained(model, optimizer, 6, models.mlp_loss)
    optimizer.complete()
    hvd.barrier()
    optimizer.take_statistics()
    statistics = Statistics(optimizer)
    for step in range(SLOW_STEPS):
        train(model, optimizer, statistics, step)
    optimizer.complete()
    told = statistics.take()
    pieces = optimizer._own.reducer._buffers.pieces
    optimizer.close()
    assert told["exposed_s"] > 0.6 * SLOW_STEPS * PAUSE
    assert told["waiting_s"] < 0.2 * told["exposed_s"], told
    assert told["communication_s"] >= SLOW_STEPS * PAUSE
    assert told["forward_s"] < 0.3 * told["exposed_s"], told
    assert told["gradient_bytes"] == SLOW_STEPS * sum(4 * one.numel() for one in pieces) >= SLOW_STEPS * size
    assert set(statistics.take().values()) == {0.0}
    assert "waiting_s" not in statistics.take()


def what_has_no_room_is_not_told() -> None:
    """Each rank's number has a place in the headers; where there are fewer places than ranks nothing is known."""
    model = nn.Linear(3, 3)
    layout = lay_out([size_of(one) for one in model.parameters()], [0, 1], 1 << 20)
    places = 2 * 13  # in each header of 64 bytes, behind the flag and the two words to all
    for ranks in (1, places, places + 1):
        buffers = Buffers(list(model.parameters()), layout)
        counters = Counters()
        counters.begin(buffers, ranks - 1, ranks)
        counters.waited = 7.0
        counters.end(buffers, ranks)
        assert "waiting_s" not in counters.take(), "in the first step nobody knows what the others wait"
        counters.begin(buffers, ranks - 1, ranks)
        for piece in buffers.pieces:
            piece.div_(ranks)  # as an average, to which the others have contributed zeros
        if ranks <= places:
            assert buffers.told(ranks) == pytest.approx([0.0] * (ranks - 1) + [7.0])
            assert all(not view.any() for view in buffers.views.values())
        assert "waiting_s" not in counters.take()
        counters.waited = 12.0
        counters.end(buffers, ranks)
        told = counters.take()
        assert told.get("waiting_s") == (None if ranks > places else 0.0 if ranks == 1 else 5.0)
        assert told["exposed_s"] == 5.0
    steps = what_one_waits([4.0, 1.0, 4.0, 1.0, 4.0], Buffers(list(model.parameters()), layout))
    assert steps == [None, 0.0, 0.0, 0.0, 0.0], "alone it waits for the transfer, however unlike its steps are"
    halves = list(model.half().parameters())
    assert not Buffers(halves, lay_out([size_of(one) for one in halves], [0, 1], 4096)).tell(1.0, 0, 2)


def what_one_waits(waits: list[float], buffers: Buffers) -> list[float | None]:
    """``waiting_s`` of each step of a rank that is alone, and so its own slowest."""
    counters, told = Counters(), []
    for seconds in waits:
        counters.begin(buffers, 0, 1)
        counters.waited += seconds
        counters.end(buffers, 1)
        told.append(counters.take().get("waiting_s"))
    return told


def train(model: Any, optimizer: Any, statistics: Statistics, step: int, pause: float = 0.0) -> None:
    """One step whose forward pass takes ``pause`` seconds more."""
    optimizer.zero_grad()
    with statistics.timed("forward"):
        time.sleep(pause)
        loss = models.mlp_loss(model, step)
    with statistics.timed("backward"):
        backward(loss)
    optimizer.step()


def alike(fact: Any) -> bool:
    """Whether all ranks have the same."""
    facts = hvd.allgather_object(fact)
    return all(other == facts[0] for other in facts)


CASES: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        isolation, a_slow_rank_is_waited_for, a_slow_link_is_not_a_slow_rank, what_has_no_room_is_not_told,
    )
}  # fmt: skip
