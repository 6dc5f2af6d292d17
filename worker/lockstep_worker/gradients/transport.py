"""``Transport``: carries one piece at a time between the ranks; over Horovod, a group of torch's own Gloo, or TCP.

All average in place. Horovod's collectives meet by name, and nothing tells of their end: they are polled. Those of a
process group meet by the order in which they are issued, so ours has a group of its own, and it calls back. The
connections of our own (``tcp``) are driven by the exchange's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lockstep_worker import slices
from lockstep_worker.gradients.dtypes import check_averaged
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.tcp import TcpTransport

POLL = 0.0003
"""Seconds between two looks at a collective that somebody waits for."""

PATIENCE = timedelta(days=365)
"""How long a piece over Gloo waits for another rank, which may wait for its data, evaluate or save for as long as it
likes: over Horovod no piece ever gives up either. One that is gone closes its connections; one that hangs is the
watchdog's."""


class Transport(Protocol):
    """What carries pieces.

    ``start`` is called by two threads, one at a time; ``finish`` by one of them; ``gather`` by the other one, and never
    while pieces are under way.
    """

    rank: int
    size: int
    calls_back: bool
    """Whether ``landed`` is called; else ``is_done`` has to be asked."""

    def check(self, dtype: torch.dtype) -> None:
        """Raises ``GradientError`` if gradients of this dtype cannot be carried."""

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> Any:  # noqa: ANN401 - its own handle
        """Begins to average ``buffer`` (one dimension, contiguous) over all ranks in place."""

    def is_done(self, handle: Any) -> bool:  # noqa: ANN401
        """Whether it has ended, well or badly; costs microseconds and never waits."""

    def finish(self, handle: Any, buffer: Tensor) -> None:  # noqa: ANN401
        """Ends what is done: the average is in ``buffer``. Raises what went wrong."""

    def gather(self, fact: Any) -> list[Any]:  # noqa: ANN401
        """The facts (values of JSON) of all ranks, by rank; waits for all of them without spinning."""


@runtime_checkable
class Driven(Protocol):
    """What a transport without threads of its own has besides: the exchange's thread sleeps in it.

    ``landed`` is called within ``drive``.
    """

    def drive(self) -> None:
        """Carries pieces until one has ended or ``wake`` was called; sleeps while there is nothing to do."""

    def wake(self) -> None:
        """Has ``drive`` return, now or when it is called next; by any thread."""

    def close(self) -> None:
        """Ends it; nothing is under way, or something went wrong."""


class HorovodTransport:
    """Over Horovod's global process set. ``name`` tells it from other users of Horovod in this process."""

    calls_back = False
    carried_by = "horovod.torch"

    def __init__(self, name: str) -> None:
        import horovod.torch as hvd

        self._hvd = hvd
        self._name = name
        if not hvd.is_initialized():
            raise GradientError("Horovod is not initialised; call hvd.init() before lockstep.DistributedOptimizer")
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()

    def check(self, dtype: torch.dtype) -> None:
        """What Horovod can sum."""
        check_averaged(dtype, "Horovod")

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> int:  # noqa: ARG002
        """Hands the buffer to Horovod's own thread."""
        handle: int = self._hvd.allreduce_async_(buffer, name=name, op=self._hvd.Average)
        return handle

    def is_done(self, handle: int) -> bool:
        """As Horovod says."""
        return bool(self._hvd.poll(handle))

    def finish(self, handle: int, buffer: Tensor) -> None:  # noqa: ARG002
        """Raises ``HorovodInternalError``, which elastic trainings live by, as it is."""
        self._hvd.synchronize(handle)

    def gather(self, fact: Any) -> list[Any]:  # noqa: ANN401
        """By two gathers, of lengths and of texts. ``hvd.synchronize`` would spin until the slowest rank is there."""
        text = torch.tensor(list(json.dumps(fact).encode()), dtype=torch.uint8)
        lengths = self._all(torch.tensor([len(text)]), "lengths").tolist()
        texts = torch.split(self._all(text, "facts"), lengths)
        return [json.loads(bytes(one.tolist())) for one in texts]

    def _all(self, tensor: Tensor, what: str) -> Tensor:
        handle = self._hvd.allgather_async(tensor, name=f"{self._name}.{what}")
        while not self._hvd.poll(handle):
            time.sleep(POLL)
        found: Tensor = self._hvd.synchronize(handle)
        return found


class GlooTransport:
    """Over a process group of its own. To make one is a collective of all ranks (``torch.distributed.new_group``).

    Its collectives wait for another rank for as long as that takes (``PATIENCE``). torch's own default is 30 minutes,
    whatever the timeout of ``init_process_group`` (2.13).
    """

    calls_back = True
    carried_by = "torch.distributed"

    def __init__(self, name: str) -> None:  # noqa: ARG002 - the group is its name
        import torch.distributed as dist

        self._dist = dist
        if not dist.is_initialized():
            raise GradientError(
                'torch.distributed is not initialised; call init_process_group("gloo") before '
                'lockstep.DistributedOptimizer(..., transport="gloo")'
            )
        with slices.shortened():
            self._group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()

    def end(self) -> None:
        """Ends the group, its threads and its connections: nothing is under way in it any more."""
        group, self._group = self._group, None
        if group is not None and self._dist.is_initialized():  # else it has ended, by itself or with torch's own
            self._dist.destroy_process_group(group)

    def check(self, dtype: torch.dtype) -> None:
        """What NumPy can scale; Gloo itself also sums bfloat16."""
        check_averaged(dtype, "Gloo")

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> Any:  # noqa: ANN401, ARG002
        """Queues it in the group."""
        work = self._dist.all_reduce(buffer, group=self._group, async_op=True)
        future = work.get_future()
        future.add_done_callback(lambda _future: landed())
        return work, future

    def is_done(self, handle: Any) -> bool:  # noqa: ANN401
        """By the future: the work itself says so only after its callbacks (torch 2.13)."""
        return bool(handle[1].done())

    def finish(self, handle: Any, buffer: Tensor) -> None:  # noqa: ANN401
        """Scales the sum by NumPy: torch would start a pool of compute threads for the calling thread."""
        handle[0].wait()
        array = buffer.numpy()
        array *= array.dtype.type(1.0 / self.size)

    def gather(self, fact: Any) -> list[Any]:  # noqa: ANN401
        """By two gathers, of lengths and of padded texts."""
        text = torch.tensor(list(json.dumps(fact).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._dist.all_gather(lengths, torch.tensor([len(text)]), group=self._group)
        longest = max(int(one) for one in lengths)
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(text)] = text
        self._dist.all_gather(texts, padded, group=self._group)
        return [json.loads(bytes(one[: int(length)].tolist())) for one, length in zip(texts, lengths)]  # noqa: B905


def open_transport(transport: str | Transport, name: str) -> Transport:
    """The transport called ``horovod``, ``gloo`` or ``tcp``, or the one that is given itself."""
    if transport == "horovod":
        return HorovodTransport(name)
    if transport == "gloo":
        return GlooTransport(name)
    if transport == "tcp":
        return over_tcp(name)
    if isinstance(transport, str):
        raise GradientError(
            f"transport is {transport!r}; it is 'horovod', 'gloo', 'tcp', or an object with its methods"
        )
    return transport


def give_back(transport: Transport) -> None:
    """Gives back what an exchange has had made for itself alone; nothing is under way over it any more."""
    own = transport.base if isinstance(transport, TcpTransport) else transport
    if isinstance(own, GlooTransport):
        own.end()


def over_tcp(name: str) -> TcpTransport:
    """Its ranks are Horovod's, where that is initialised, else torch.distributed's."""
    import torch.distributed as dist

    base: Transport
    try:
        base = HorovodTransport(name)
    except (ImportError, GradientError):
        if not dist.is_initialized():
            raise
        base = GlooTransport(name)
    return TcpTransport(base)


def transport_name(transport: Transport) -> str:
    """``horovod``, ``gloo``, ``tcp``, or the class of one's own."""
    if isinstance(transport, TcpTransport):
        return "tcp"
    known = {"horovod.torch": "horovod", "torch.distributed": "gloo"}
    return known.get(str(getattr(transport, "carried_by", None)), type(transport).__name__)
