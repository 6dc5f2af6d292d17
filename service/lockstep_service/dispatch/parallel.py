"""A few threads for what waits for somebody else: file systems that flush, and Slurm's commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_parallel(work: Callable[[Item], Found], items: Sequence[Item], threads: int) -> list[Found]:
    """What ``work`` makes of each, in their order, begun in their order by at most ``threads`` at a time.

    When all are done, the first error that one of them raised is raised. The threads are daemons: a call to Slurm may
    take half a minute, and a service that ends must not wait for it.
    """
    if threads <= 1 or len(items) <= 1:
        return [work(item) for item in items]
    waiting: SimpleQueue[tuple[int, Item]] = SimpleQueue()
    for pair in enumerate(items):
        waiting.put(pair)
    found: dict[int, Found] = {}
    failed: list[BaseException] = []

    def turn() -> None:
        while not failed:
            try:
                place, item = waiting.get_nowait()
            except Empty:
                return
            try:
                found[place] = work(item)
            except BaseException as error:
                failed.append(error)

    workers = [Thread(target=turn, daemon=True) for _ in range(min(threads, len(items)))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return [found[place] for place in range(len(items))]
