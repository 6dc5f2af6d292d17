"""What the ranks tell each other for a checkpoint: bytes of each, and small counts that are added up meanwhile.

Over whatever the training itself has started: Horovod, else torch.distributed (a Gloo group of our own, since groups
meet by the order of their collectives). A rank alone needs neither.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.gradients.transport import PATIENCE

POLL = 0.0005
"""Seconds between two looks at a collective of Horovod's: its own ``synchronize`` would spin."""
_NAME = "lockstep.checkpoint"


class Ranks(Protocol):
    """The ranks of a training. All of them call the same methods in the same order."""

    rank: int
    size: int

    def gather(self, own: bytes) -> list[bytes]:
        """What each rank gave, by rank; waits for all of them."""

    def begin_sum(self, counts: Sequence[int]) -> None:
        """Begins to add up ``counts`` of all ranks, and returns at once."""

    def end_sum(self) -> list[int]:
        """The sums that were begun; waits, where they are not there yet."""

    def end(self) -> None:
        """Gives back what was made for this alone; nothing is under way, and nothing is asked any more."""


def agreed(ranks: Ranks, ask: Callable[[], str]) -> list[str]:
    """What each rank has to say, by rank.

    Raises the ``CheckpointError`` of the first one that has none on all of them. A collective of all ranks.
    """
    try:
        own = [ask(), ""]
    except CheckpointError as error:
        own = ["", str(error)]
    every = [json.loads(one) for one in ranks.gather(json.dumps(own).encode())]
    if problem := next((problem for _, problem in every if problem), None):
        raise CheckpointError(problem)
    return [said for said, _ in every]


class Alone:
    """One rank, which has nobody to ask."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._counts: list[int] = []

    def gather(self, own: bytes) -> list[bytes]:
        """Its own."""
        return [own]

    def begin_sum(self, counts: Sequence[int]) -> None:
        """Keeps them."""
        self._counts = list(counts)

    def end_sum(self) -> list[int]:
        """Its own."""
        return self._counts

    def end(self) -> None:
        """Has nothing to give back."""


class HorovodRanks:
    """Over Horovod's global process set."""

    def __init__(self) -> None:
        import horovod.torch as hvd

        self._hvd = hvd
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self._under_way: int | None = None

    def gather(self, own: bytes) -> list[bytes]:
        """By two gathers, of lengths and of bytes."""
        data = torch.frombuffer(bytearray(own), dtype=torch.uint8) if own else torch.empty(0, dtype=torch.uint8)
        lengths = self._wait(self._hvd.allgather_async(torch.tensor([len(data)]), name=f"{_NAME}.lengths")).tolist()
        if sum(lengths) == 0:
            return [b""] * self.size
        every = self._wait(self._hvd.allgather_async(data, name=f"{_NAME}.bytes"))
        return [one.numpy().tobytes() for one in torch.split(every, lengths)]

    def begin_sum(self, counts: Sequence[int]) -> None:
        """As whole numbers: Horovod fuses no gradient with those, whose sums it would otherwise divide anew."""
        self._under_way = self._hvd.allreduce_async(
            torch.tensor(counts, dtype=torch.int32), op=self._hvd.Sum, name=f"{_NAME}.counts"
        )

    def end_sum(self) -> list[int]:
        """Waits without spinning."""
        handle, self._under_way = self._under_way, None
        return [] if handle is None else [int(one) for one in self._wait(handle).tolist()]

    def end(self) -> None:
        """Horovod is the training's own."""

    def _wait(self, handle: int) -> Tensor:
        while not self._hvd.poll(handle):
            time.sleep(POLL)
        found: Tensor = self._hvd.synchronize(handle)
        return found


class TorchRanks:
    """Over a Gloo group of all ranks of torch.distributed; to make one is a collective."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        # torch's own limit of 30 minutes would end a training whose rank 0 evaluates, or waits for a disk, for longer.
        self._group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()
        self._under_way: tuple[Any, Tensor] | None = None

    def gather(self, own: bytes) -> list[bytes]:
        """By two gathers, of lengths and of padded bytes."""
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._dist.all_gather(lengths, torch.tensor([len(own)]), group=self._group)
        longest = max(int(one) for one in lengths)
        every = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        padded = torch.frombuffer(bytearray(own.ljust(longest, b"\0")), dtype=torch.uint8) if longest else every[0]
        self._dist.all_gather(every, padded, group=self._group)
        return [one.numpy().tobytes()[: int(length)] for one, length in zip(every, lengths)]  # noqa: B905 - Python 3.9

    def begin_sum(self, counts: Sequence[int]) -> None:
        """Queues it in the group."""
        tensor = torch.tensor(counts, dtype=torch.int32)
        self._under_way = (self._dist.all_reduce(tensor, group=self._group, async_op=True), tensor)

    def end_sum(self) -> list[int]:
        """Waits for the group's own thread."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return []
        under_way[0].wait()
        return [int(one) for one in under_way[1].tolist()]

    def end(self) -> None:
        """Ends the group, which waits for its threads.

        One of them may still let go of the last collective's tensors, and a thread that does while Python ends aborts
        the process (torch 2.13): a training that was saved would have failed.
        """
        group, self._group = self._group, None
        if group is not None and self._dist.is_initialized():  # else it has ended with the training's own
            self._dist.destroy_process_group(group)


def all_ranks() -> Ranks:
    """The ranks of this training. Raises ``CheckpointError`` where there are several and nothing is started yet."""
    hvd: Any = sys.modules.get("horovod.torch")
    if hvd is not None and hvd.is_initialized():
        return HorovodRanks() if hvd.size() > 1 else Alone()
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return TorchRanks() if distributed.get_world_size() > 1 else Alone()
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise CheckpointError(
            f"this is one of {size} ranks, which cannot talk to each other yet: call hvd.init() or "
            "torch.distributed.init_process_group() before lockstep.checkpoint.of()"
        )
    return Alone()
