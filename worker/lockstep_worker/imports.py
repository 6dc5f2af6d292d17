"""Acts around the import of a module by name, whoever imports it and however (standard library only).

Runs inside the training, so an error of a watcher is a line in the log and never the import's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Protocol

Around = Callable[[], AbstractContextManager[Any]]
After = Callable[[ModuleType], None]


class Complain(Protocol):
    """Says that something of ours went wrong."""

    def __call__(self, what: str, error: BaseException) -> None:
        """``what`` was being done when ``error`` came."""


class Watcher:
    """A finder before all others, which finds nothing itself: it has the finders behind it find, and watches."""

    def __init__(self, complain: Complain) -> None:
        self._complain = complain
        self._watched: dict[str, tuple[Around | None, After | None]] = {}

    def watch(self, name: str, *, around: Around | None = None, after: After | None = None) -> None:
        """Enters ``around()`` while the module's code runs; calls ``after(module)`` when it has run, or did before."""
        self._watched[name] = (around, after)
        module = sys.modules.get(name)
        if module is not None and after is not None:
            self._after(name, after, module)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the finders behind this one find; for a watched module, with a loader that tells when its code runs."""
        if name not in self._watched:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                try:
                    self._listen(spec)
                except Exception as error:
                    self._complain(f"the import of {name} is not seen", error)
                return spec
        return None

    def _listen(self, spec: ModuleSpec) -> None:
        """The loader itself stays, with its type and all that others may ask of it: one method of this one is ours."""
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            # A loader may serve several modules (a zip's does); the others have nothing to do with this.
            if getattr(module, "__name__", None) != spec.name:
                run(module)
                return
            loader.__dict__.pop("exec_module", None)
            self._run(spec.name, run, module)

        loader.exec_module = exec_module

    def _run(self, name: str, run: Callable[[ModuleType], None], module: ModuleType) -> None:
        around, after = self._watched[name]
        with ExitStack() as stack:
            if around is not None:
                stack.enter_context(Safely(around, f"around the import of {name}", self._complain))
            run(module)
        if after is not None:
            self._after(name, after, module)

    def _after(self, name: str, after: After, module: ModuleType) -> None:
        try:
            after(module)
        except Exception as error:
            self._complain(f"after the import of {name}", error)


class Safely:
    """A context manager around a call of the user's: what fails of ours at its begin or end never reaches the call."""

    def __init__(self, make: Around, what: str, complain: Complain) -> None:
        self._make = make
        self._what = what
        self._complain = complain
        self._entered: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        try:
            made = self._make()
            made.__enter__()
            self._entered = made
        except Exception as error:
            self._complain(self._what, error)

    def __exit__(self, *_: object) -> None:
        if self._entered is not None:
            try:
                # The call's own error is the call's; a manager of ours has no use for it.
                self._entered.__exit__(None, None, None)
            except Exception as error:
                self._complain(self._what, error)
