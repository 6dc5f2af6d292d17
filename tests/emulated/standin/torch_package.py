"""Stands for torch on an emulated machine: a thread made by the import, and an OpenMP pool made by the first region.

Its runtime follows the variables that the real ones follow, as far as the tests set them: OMP_NUM_THREADS, OMP_PLACES
with OMP_PROC_BIND, and KMP_AFFINITY=norespect,compact (Intel's: from the machine's first CPU on, whatever the mask).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import native  # type: ignore[import-not-found]  # beside the packages where they are used

REGION = 1 << 15
"""Elements from which on an operation is divided among threads."""
float32 = "float32"
_pool: list[int] = []


class Tensor:
    """As much of a tensor as a training of nothing needs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.grad: Tensor | None = None

    def sum(self) -> float:
        """A parallel region where it is large."""
        if self.size >= REGION:
            _region()
        return float(self.size)


def ones(size: int, **_: object) -> Tensor:
    """A tensor."""
    return Tensor(size)


def zeros(size: int, **_: object) -> Tensor:
    """A tensor."""
    return Tensor(size)


def set_num_interop_threads(number: int) -> None:
    """A pool that nothing here uses."""


def _region() -> None:
    if _pool:
        return
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    _pool.append(threads)
    bind = _binding()
    bind(0)
    for number in range(1, threads):
        native.start("python3", lambda number=number: bind(number))


def _binding() -> Callable[[int], None]:
    """What binds the pool's thread of a number, in that thread."""
    intel = os.environ.get("KMP_AFFINITY", "").split(",")
    if "compact" in intel and "norespect" in intel:
        machine = os.cpu_count() or 1
        return lambda number: _move({number % machine})
    places = [
        {int(cpu) for cpu in place.split(",")} for place in os.environ.get("OMP_PLACES", "")[1:-1].split("},{") if place
    ]
    if places and os.environ.get("OMP_PROC_BIND", "false") != "false":
        return lambda number: _move(places[number % len(places)])
    return lambda number: None


def _move(cpus: set[int]) -> None:
    with contextlib.suppress(OSError):  # as OpenMP's runtimes: outside of the cpuset it stays where it is
        os.sched_setaffinity(0, cpus)


native.start("import")
from torch import optim  # noqa: E402, F401
