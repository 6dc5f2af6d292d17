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
from typing import Any, Protocol

AT_EXIT = 30.0
"""Seconds that the end of a process waits for an update that is on its way; a rank that failed must not stay."""


class Ending(Protocol):
    """What has something to complete."""

    carried_by: str | None
    """The module that carries it, ``horovod.torch`` or ``torch.distributed``; None: any may."""

    def complete(self, seconds: float | None = None) -> None:
        """Completes it."""

    def close(self, seconds: float = AT_EXIT) -> None:
        """Completes it, and ends for good."""


Function = Callable[..., Any]
_live: weakref.WeakSet[Ending] = weakref.WeakSet()
_watched: set[tuple[str, str]] = set()


def register(one: Ending) -> None:
    """It will be completed in time, as long as it lives."""
    if not _watched:
        _watched.add(("", "exit"))
        atexit.register(_close_all)
        os.register_at_fork(before=complete_all)
    _complete_before_saving()
    wrap("horovod.torch", "shutdown", _ending("horovod.torch"))
    wrap("torch.distributed", "destroy_process_group", _ending("torch.distributed"))
    _live.add(one)


def complete_all() -> None:
    """Completes what is sealed; the threads stay."""
    wrong: list[Exception] = []
    for one in list(_live):
        try:
            one.complete()
        except Exception as error:
            wrong.append(error)  # the others are to be complete all the same
    if wrong:
        raise wrong[0]


def wrap(module_name: str, name: str, around: Callable[[Function], Function]) -> None:
    """Puts ``around(function)`` in the place of a module's function, once, wherever it was imported to by now."""
    module = sys.modules.get(module_name)
    if module is None or (module_name, name) in _watched or not hasattr(module, name):
        return
    _watched.add((module_name, name))
    plain: Function = getattr(module, name)
    wrapped = around(plain)
    for other in list(sys.modules.values()):
        names = vars(other) if isinstance(other, ModuleType) else {}
        for known in [known for known, value in list(names.items()) if value is plain]:
            names[known] = wrapped


def _complete_before_saving() -> None:
    """A model of TorchScript is saved from its memory, by no operation that a guarded parameter would see."""
    script = sys.modules.get("torch.jit._script")
    if script is None or ("torch.jit", "save") in _watched:
        return
    _watched.add(("torch.jit", "save"))
    for name in ("save", "save_to_buffer", "_save_for_lite_interpreter", "_save_to_buffer_for_lite_interpreter"):
        if (plain := getattr(script.RecursiveScriptModule, name, None)) is not None:  # PYTORCH_JIT=0 has none of them
            setattr(script.RecursiveScriptModule, name, _completed(plain))


def _completed(function: Function) -> Function:
    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        complete_all()
        return function(*arguments, **named)

    return wrapped


def _close_all(carrier: str | None = None) -> None:
    for one in list(_live):
        if carrier is not None and one.carried_by not in (None, carrier):
            continue
        try:
            one.close()
        except Exception as error:  # of a rank that ends anyway; its own error has been told
            print(f"lockstep: an update was not completed at the end: {error!r}", file=sys.stderr)
        _live.discard(one)


def _ending(carrier: str) -> Callable[[Function], Function]:
    """Has everything that is carried by this module closed before it ends."""

    def around(ends: Function) -> Function:
        @functools.wraps(ends)
        def wrapped(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            if _is_whole(arguments[0] if arguments else named.get("group")):
                _close_all(carrier)
            return ends(*arguments, **named)

        return wrapped

    return around


def _is_whole(group: object) -> bool:
    """Whether it is all of the ranks, and not a group that somebody else made."""
    if group is None:
        return True
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and group is distributed.group.WORLD
