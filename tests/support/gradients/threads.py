"""Ranks that are threads of this process, and what tells them of each other: for transports without Horovod."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Gathered = Callable[[int, int, list[Any]], None]
"""Called by each rank as (rank, which gather of this rank it is, facts), before it goes on."""


class Base:
    """Tells the facts of ranks that are threads."""

    carried_by = "threads"

    def __init__(self, size: int, then: Gathered | None = None) -> None:
        self.size = size
        self._facts: list[Any] = [None] * size
        self._barrier = threading.Barrier(size, timeout=60)
        self._then = then

    def of(self, rank: int) -> BaseOfRank:
        return BaseOfRank(self, rank)

    def gather(self, rank: int, number: int, fact: Any) -> list[Any]:
        self._facts[rank] = fact
        self._barrier.wait()
        found = list(self._facts)
        self._barrier.wait()
        if self._then is not None:
            self._then(rank, number, found)
        return found


class BaseOfRank:
    carried_by = "threads"

    def __init__(self, base: Base, rank: int) -> None:
        self.base, self.rank, self.size = base, rank, base.size
        self.gathered = 0

    def gather(self, fact: Any) -> list[Any]:
        self.gathered += 1
        return self.base.gather(self.rank, self.gathered, fact)


def on_ranks(size: int, do: Callable[[BaseOfRank], Any], then: Gathered | None = None) -> list[Any]:
    """What each rank returns, or the error that it raised."""
    base = Base(size, then)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = do(base.of(rank))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert not any(one.is_alive() for one in threads), "a rank hangs"
    return found
