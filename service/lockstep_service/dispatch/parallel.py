"""A few threads for what waits for somebody else: file systems that flush, and Slurm's commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import TypeVar, cast

Item = TypeVar("Item")
Found = TypeVar("Found")


class _Helpers:
    """Threads that stay, since a turn of the submit loop may be a few jobs, many times a second.

    They are daemons, unlike those of ``concurrent.futures``: a call to Slurm may take half a minute, and a service that
    ends must not wait for it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = 0

    def begin(self, task: Callable[[], None]) -> None:
        """Has a thread call ``task`` at once: one that is idle, else a new one. ``task`` raises nothing."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                Thread(target=self._work, daemon=True).start()
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            self._tasks.get()()
            with self._lock:
                self._idle += 1


_helpers = _Helpers()


def in_background(work: Callable[[], Found]) -> Callable[[], Found]:
    """Begins ``work``; what is returned waits for its end, once, and gives what it made, or raises what it raised."""
    found: SimpleQueue[tuple[Found | None, BaseException | None]] = SimpleQueue()

    def task() -> None:
        try:
            found.put((work(), None))
        except BaseException as error:
            found.put((None, error))

    _helpers.begin(task)

    def made() -> Found:
        value, error = found.get()
        if error is not None:
            raise error
        return cast("Found", value)

    return made


def in_parallel(work: Callable[[Item], Found], items: Sequence[Item], threads: int) -> list[Found]:
    """What ``work`` makes of each, in their order, begun in their order by at most ``threads`` at a time.

    When all are done, the first error that one of them raised is raised.
    """
    if threads <= 1 or len(items) <= 1:
        return [work(item) for item in items]
    waiting: SimpleQueue[tuple[int, Item]] = SimpleQueue()
    for pair in enumerate(items):
        waiting.put(pair)
    found: dict[int, Found] = {}
    failed: list[BaseException] = []
    done = Semaphore(0)

    def turn() -> None:
        while not failed:
            try:
                place, item = waiting.get_nowait()
            except Empty:
                break
            try:
                found[place] = work(item)
            except BaseException as error:
                failed.append(error)
        done.release()

    count = min(threads, len(items))
    for _ in range(count):
        _helpers.begin(turn)
    for _ in range(count):
        done.acquire()
    if failed:
        raise failed[0]
    return [found[place] for place in range(len(items))]
