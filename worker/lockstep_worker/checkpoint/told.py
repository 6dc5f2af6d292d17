"""``Told``: what this rank was told by a signal: to stop and go on later (SIGUSR1), or to stop (SIGTERM).

Standard library only. A signal only leaves a note here; the training looks at it between two steps. What came before
the training could listen, its wrapper has noted in a file. Under Slurm a signal may come twice: to the wrapper, which
passes it on, and, where Slurm signals every process of a step (linuxproc), to the training itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Optional

FILE = "LOCKSTEP_TOLD"
"""The variable that names the wrapper's file: the names of the signals so far, one a line, and what was then saved."""
_SAVED = "saved-step-"
LISTENS_TO = (signal.SIGUSR1, signal.SIGTERM)


class Told:
    """Listens from now on, until ``leave``."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in LISTENS_TO:
                self._before[number] = signal.signal(number, self._note)
        # After that: what the wrapper notes from here on, it also sends.
        self._numbers |= noted(os.environ.get(FILE))

    @property
    def go_on_later(self) -> bool:
        """Whether to stop because the job's time here is over."""
        return signal.SIGUSR1 in self._numbers

    @property
    def stop(self) -> bool:
        """Whether to stop because somebody ends the job."""
        return signal.SIGTERM in self._numbers

    def _note(self, number: int, frame: Any) -> None:  # noqa: ANN401
        if os.getpid() != self._pid:
            # A loader's process, forked from the training: there the signal does what it did before.
            before = self._before.get(number)
            signal.signal(number, signal.SIG_IGN if number == signal.SIGUSR1 else signal.SIG_DFL)
            if callable(before):
                before(number, frame)
            elif number != signal.SIGUSR1:
                os.kill(os.getpid(), number)
            return
        self._numbers.add(number)

    def ignore(self) -> None:
        """From here on signals do nothing: this process ends already, by what it was told.

        A launcher tells the others to end once the first rank has.
        """
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before = {}

    def leave(self) -> None:
        """Puts back what handled the signals before."""
        for number, before in self._before.items():
            if before is not None:
                signal.signal(number, before)
        self._before = {}


def note(file: Path, number: int) -> None:
    """The wrapper's: adds a signal to its file."""
    _add(file, signal.Signals(number).name)


def note_saved(step: int) -> None:
    """The training's, before it ends because it was told to: that ``step`` is saved.

    By this its wrapper tells it from a script that ends with the same exit code for reasons of its own.
    """
    if (file := os.environ.get(FILE)) is not None:
        try:
            _add(Path(file), f"{_SAVED}{step}")
        except OSError as error:
            print(f"lockstep: that step {step} is saved is not noted in {file}: {error}", file=sys.stderr, flush=True)


def saved(file: Path) -> Optional[int]:  # noqa: UP045 - read by Python 3.9 on compute nodes
    """The step that the training has noted as saved; None: it was not told to stop, or has saved nothing."""
    steps = [int(word[len(_SAVED) :]) for word in _words(file) if word.startswith(_SAVED)]
    return steps[-1] if steps else None


def _add(file: Path, word: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{word}\n".encode())
    finally:
        os.close(descriptor)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def noted(file: Optional[str]) -> set[int]:  # noqa: UP045 - read by Python 3.9 on compute nodes
    """The signals in that file; none where there is no file."""
    words = _words(Path(file)) if file is not None else []
    return {signal.Signals[word] for word in words if word in signal.Signals.__members__}
