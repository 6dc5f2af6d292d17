"""Batches in the order that they are asked for: loaded by the rank's own thread, or ahead of it on loader CPUs.

The loaders are processes: Python code on other threads of the rank would hold up its training and its gradients. They
are forked once the data are open, so a list of a million files is in memory once, and share memory with the rank, so
a batch is never sent. They never outlive it, and what they load is bit for bit what the rank itself would load.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import stat
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lockstep_worker.data import DataSet
from lockstep_worker.data.broken import Broken
from lockstep_worker.data.sharding import behind, shard, steps_left
from lockstep_worker.errors import DataError, LoaderError
from lockstep_worker.processes import dies_with_its_parent
from lockstep_worker.recipe import Recipe

AHEAD = 2
"""Batches that are loaded while one is trained on; there is memory for so many and one more."""
PATIENCE = 5.0
"""Seconds that a loader has to end after it was told to."""
_ALIGNED = 4096


class Request(NamedTuple):
    """One batch."""

    indices: Tensor
    epoch: int = 0
    held_out: bool = False

    def of(self, samples: DataSet) -> tuple[Tensor, Tensor]:
        """Loads it, here and now."""
        if self.held_out:
            return samples.held_out_batch(self.indices)
        return samples.train_batch(self.indices, self.epoch)


def to_train_on(
    samples: DataSet, recipe: Recipe, *, epoch: int, rank: int, ranks: int, done: int = 0
) -> Iterator[Request]:
    """This rank's batches of an epoch, behind its first ``done`` samples, of all ranks together."""
    left = steps_left(samples.train, done, batch_size=recipe.batch_size, ranks=ranks, cap=recipe.steps_per_epoch)
    for step in range(left):
        begin = done + step * recipe.batch_size * ranks
        yield Request(
            behind(samples.train, epoch, begin, batch_size=recipe.batch_size, rank=rank, seed=recipe.seed), epoch
        )


def to_evaluate(samples: DataSet, *, rank: int, ranks: int, size: int) -> Iterator[Request]:
    """This rank's share of the held-out samples, in batches of ``size``; none where it has none."""
    for part in torch.split(shard(samples.held_out, rank=rank, ranks=ranks), size):
        if len(part):
            yield Request(part, held_out=True)


class Feed:
    """A rank's batches. A context manager, whose end ends the loaders."""

    def __init__(self, samples: DataSet, cpus: Sequence[int], rows: int) -> None:
        """``cpus`` are the rank's loader CPUs, each of which gets a process; without any, its own thread loads.

        ``rows`` is how many samples a batch has at most.
        """
        self._samples = samples
        self._loaders = Loaders(samples, cpus, rows) if cpus else None

    def __enter__(self) -> Feed:  # noqa: PYI034 - typing.Self is of 3.11, and ranks may have 3.9
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._loaders is not None:
            self._loaders.close()

    def batches(self, requests: Iterable[Request]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``requests`` in their order; each is valid until the next one is asked for.

        Raises ``DataError`` for what cannot be loaded, where its turn comes; ``LoaderError`` when a loader has died.
        """
        if self._loaders is not None:
            yield from self._loaders.batches(requests)
        else:
            for request in requests:
                yield request.of(self._samples)


@dataclass(frozen=True)
class _Slot:
    """Memory for one batch, shared by all."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class _Answer:
    """What a loader says of its part of a batch."""

    rows: int
    """How many it has written, from the beginning of its part on."""
    broken: dict[str, str]
    error: str | None = None
    """A ``DataError``'s text, or with ``crashed`` a traceback."""
    crashed: bool = False


class Loaders:
    """Processes that each load a part of every batch, some batches ahead of the one that is trained on."""

    def __init__(self, samples: DataSet, cpus: Sequence[int], rows: int) -> None:
        self._broken: Broken | None = getattr(samples, "broken", None)
        # How large a sample is says the first one.
        self._slots = [_slot(samples.train_batch(torch.zeros(1, dtype=torch.int64)), rows) for _ in range(AHEAD + 1)]
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        # Forked, so that what is open is open there: to open the data again would cost each a listing.
        context = multiprocessing.get_context("fork")
        for number in range(len(cpus)):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_load,
                args=(theirs, self._slots, samples, cpus, os.getpid()),
                name=f"loader {number}",
                daemon=True,
            )
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def batches(self, requests: Iterable[Request]) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Feed.batches``."""
        coming = iter(requests)
        free, asked = deque(range(len(self._slots))), deque[tuple[int, list[tuple[int, int, int]]]]()
        try:
            while True:
                while free and (request := next(coming, None)) is not None:
                    slot = free.popleft()
                    asked.append((slot, self._ask(slot, request)))
                if not asked:
                    return
                slot, parts = asked.popleft()
                yield self._gather(slot, parts)
                free.append(slot)
        finally:
            # Whoever stops in the middle leaves answers behind, which are not the next one's.
            for loader in [loader for _, parts in asked for loader, _, _ in parts] if self._connections else ():
                self._answer(loader)

    def close(self) -> None:
        """Ends the loaders, whatever they are at."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()
        self._connections, self._processes = [], []

    def _ask(self, slot: int, request: Request) -> list[tuple[int, int, int]]:
        """Divides a batch; returns who loads which rows: (loader, first, how many)."""
        parts, begin = [], 0
        for loader, indices in enumerate(torch.tensor_split(request.indices, len(self._connections))):
            if len(indices):
                told = (slot, begin, indices.numpy(), request.epoch, request.held_out)
                try:
                    self._connections[loader].send(told)
                except OSError:
                    self._complain(loader)
                parts.append((loader, begin, len(indices)))
            begin += len(indices)
        return parts

    def _gather(self, slot: int, parts: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        """The whole batch, once all have written their parts."""
        answers = [(begin, asked, self._answer(loader)) for loader, begin, asked in parts]
        for _, _, answer in answers:
            for path, why in answer.broken.items():
                if self._broken is not None:
                    self._broken.add(path, why)
            if answer.crashed:
                raise LoaderError(f"a loader could not go on:\n{answer.error}")
            if answer.error is not None:
                raise DataError(answer.error)
        inputs, targets = self._slots[slot].inputs, self._slots[slot].targets
        if all(answer.rows == asked for _, asked, answer in answers):
            rows = sum(asked for _, asked, _ in answers)
            return inputs[:rows], targets[:rows]
        kept = [torch.arange(begin, begin + answer.rows) for begin, _, answer in answers]
        return inputs[torch.cat(kept)], targets[torch.cat(kept)]

    def _answer(self, loader: int) -> _Answer:
        try:
            answer: _Answer = self._connections[loader].recv()
        except (EOFError, OSError):
            self._complain(loader)
            raise
        return answer

    def _complain(self, loader: int) -> None:
        process = self._processes[loader]
        process.join(PATIENCE)
        code = process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        memory = "; if the node ran out of memory, ask for more (resources.mem)" if code == -signal.SIGKILL else ""
        raise LoaderError(f"loader process {process.pid} has ended with {how}{memory}")


def _slot(sample: tuple[Tensor, Tensor], rows: int) -> _Slot:
    """Memory for ``rows`` like this one, of which the system gives what is used."""
    return _Slot(*(_shared(part, rows) for part in sample))


def _shared(like: Tensor, rows: int) -> Tensor:
    shape = (rows, *like.shape[1:])
    count = like[0].numel() * rows
    size = -(-count * like.element_size() // _ALIGNED) * _ALIGNED
    return torch.frombuffer(mmap.mmap(-1, max(size, _ALIGNED)), dtype=like.dtype, count=count).view(shape)


def _load(connection: Connection, slots: Sequence[_Slot], samples: Any, cpus: Sequence[int], parent: int) -> None:  # noqa: ANN401
    """What a loader does, from its fork to its end: that of the pipe, or of the rank."""
    dies_with_its_parent(parent)
    # What ends a job ends the rank, which may want to save first, and its end is ours.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    _close_sockets(connection.fileno())
    os.sched_setaffinity(0, cpus)
    torch.set_num_threads(1)
    broken: Broken | None = getattr(samples, "broken", None)
    if broken is not None:
        broken.silent = True
    told = 0
    while True:
        try:
            slot, begin, indices, epoch, held_out = connection.recv()
        except (EOFError, OSError):
            return
        rows, error, crashed = 0, None, False
        try:
            inputs, targets = Request(torch.from_numpy(indices), epoch, held_out).of(samples)
            rows = len(inputs)
            slots[slot].inputs[begin : begin + rows] = inputs
            slots[slot].targets[begin : begin + rows] = targets
        except DataError as known:
            error = str(known)
        except Exception:
            error, crashed = traceback.format_exc(), True
        found = list(broken.found.items())[told:] if broken is not None else []
        told += len(found)
        try:
            connection.send(_Answer(rows, dict(found), error, crashed))
        except OSError:
            return


def _close_sockets(but: int) -> None:
    """Closes what the fork has inherited of the rank's connections, so that the others see a rank's end at once."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if int(name) != but and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.close(int(name))
        except OSError:
            continue  # the listing's own
