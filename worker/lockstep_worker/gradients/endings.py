"""What ends an exchange from outside: the interpreter's exit, a fork, and the shutdown of what carries it.

A sealed update is completed before each of them: the other ranks wait for this one's share of it, and nobody could
complete it afterwards.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Protocol

AT_EXIT = 30.0
"""Seconds that the end of a process waits for an update that is on its way; a rank that failed must not stay."""


class Ending(Protocol):
    """What has something to complete."""

    def complete(self, seconds: float | None = None) -> None:
        """Completes it."""

    def close(self, seconds: float = AT_EXIT) -> None:
        """Completes it, and ends for good."""


_live: weakref.WeakSet[Ending] = weakref.WeakSet()
_watched: set[str] = set()


def register(one: Ending) -> None:
    """It will be completed in time, as long as it lives."""
    if not _watched:
        _watched.add("exit")
        atexit.register(_close_all)
        os.register_at_fork(before=complete_all)
    _wrap("horovod.torch", "shutdown")
    _wrap("torch.distributed", "destroy_process_group")
    _live.add(one)


def complete_all() -> None:
    """Completes what is sealed; the threads stay."""
    for one in list(_live):
        one.complete()


def _close_all() -> None:
    for one in list(_live):
        try:
            one.close()
        except Exception as error:  # of a rank that ends anyway; its own error has been told
            print(f"lockstep: an update was not completed at the end: {error!r}", file=sys.stderr)
        _live.discard(one)


def _wrap(module_name: str, name: str) -> None:
    """Has everything closed before this function of a module runs, if the module was imported."""
    module: ModuleType | None = sys.modules.get(module_name)
    if module is None or module_name in _watched or not hasattr(module, name):
        return
    _watched.add(module_name)
    ends: Callable[..., object] = getattr(module, name)

    @functools.wraps(ends)
    def wrapped(*arguments: object, **named: object) -> object:
        _close_all()
        return ends(*arguments, **named)

    setattr(module, name, wrapped)
