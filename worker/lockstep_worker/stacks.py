"""Where a training is: its Python stacks by ``faulthandler``, and its threads by name as the kernel sees them.

Standard library only. A signal makes a training write its stacks into a file of the node's folder, whatever its
interpreter is at; what is below Python is told by a thread's name and by what it waits for in the kernel.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SIGNAL = signal.SIGRTMIN + 5
"""A real-time signal: SIGUSR1 and 2 are for saving and for links, and a site's or a script's own."""
ANSWER = 3.0
"""Seconds that a training has to write its stacks."""
_FRAME = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$')
_OF_PYTHON = re.compile(r"/lib(64)?/python3[0-9.]*/(?!site-packages/|dist-packages/)")
_INNERMOST = 4
_LONGEST = 20_000
"""Bytes at the end of a training's stacks, where its main thread is."""
_TOO_MANY = "..."
"""What faulthandler ends with where there are more than 100 threads (3.9 to 3.13): the oldest are not told then."""

EVALUATING, SAVING, LOADING = "evaluates", "saves or resumes", "waits for data"
WAITING, COMPUTING, SILENT = "waits for the others", "is in a step", "does not answer"
UNTOLD = "has too many threads for Python to tell where its main one is"
LEGAL = (EVALUATING, SAVING, LOADING, UNTOLD)
"""What may take as long as it likes, or be one of these, and is never judged to be a hang."""


@dataclass(frozen=True)
class Frame:
    """One line of a stack."""

    file: str
    line: str
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({Path(self.file).name}, line {self.line})"


def listen(path: Path) -> IO[bytes]:
    """The training's side: from now on it writes its stacks there when it is asked; the file has to stay open."""
    file = path.open("ab", buffering=0)
    faulthandler.register(SIGNAL, file=file, all_threads=True, chain=False)
    return file


def ask(pid: int, path: Path, patience: float = ANSWER) -> str:
    """The stacks of the training ``pid``, which listens with ``path``; an empty text where none came in time.

    Of very many threads it is the end of that, where the oldest ones are.
    """
    try:
        before = path.stat().st_size
        os.kill(pid, SIGNAL)
    except OSError:
        return ""
    ends, seen = time.monotonic() + patience, before
    while time.monotonic() < ends:
        time.sleep(0.1)
        size = path.stat().st_size
        if size > before and size == seen:
            break  # it has written, and writes no more
        seen = size
    with path.open("rb") as file:
        file.seek(max(before, file.seek(0, os.SEEK_END) - _LONGEST))
        return file.read().decode("utf-8", "replace")


def main_thread(stacks: str) -> list[Frame] | None:
    """The frames of the main thread, innermost first: faulthandler writes the newest thread first, that one last.

    None where that one is not among those that are told, or not whole.
    """
    lines = stacks.splitlines()
    if not lines:
        return []
    found: list[Frame] | None = None
    for line in lines:
        if line.startswith(("Thread 0x", "Current thread 0x")):
            found = []
        elif found is not None and (frame := _FRAME.match(line)):
            found.append(Frame(*frame.groups()))
    return None if lines[-1] == _TOO_MANY else found


def place(frames: Sequence[Frame] | None) -> str:
    """Where that is, in the words of a person: the innermost frame that is not of Python's own library."""
    if frames is None:
        return ""
    own = [one for one in frames if not _OF_PYTHON.search(one.file) and not one.file.startswith("<")]
    return str((own or frames)[0]) if frames else "what does not answer a signal"


def state(frames: Sequence[Frame] | None) -> str:
    """What a training is at, by where its main thread is."""
    if not frames:
        return UNTOLD if frames is None else SILENT
    for frame in frames:
        file, function = frame.file, frame.function
        if function in ("evaluate", "validate", "totals_of"):
            return EVALUATING
        if "/torch/serialization.py" in file or (
            "/lockstep_worker/checkpoint/" in file
            and function in ("_save", "_stop", "_leave", "_resume", "save", "close", "evaluated", "wait")
        ):
            return SAVING
        if "/lockstep_worker/data/" in file or "/torch/utils/data/" in file:
            return LOADING
    others = ("/horovod/", "/torch/distributed/", "/lockstep_worker/gradients/", "/lockstep_worker/checkpoint/ranks.py")
    if any(part in frame.file for frame in frames[:_INNERMOST] for part in others):
        return WAITING
    return COMPUTING


def threads(pid: int) -> list[str]:
    """Each thread by its id, name, state (proc(5)) and what it waits for in the kernel."""
    found = []
    for folder in sorted(Path(f"/proc/{pid}/task").glob("*"), key=lambda one: int(one.name)):
        try:
            name = (folder / "comm").read_text(errors="replace").strip()
            status = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            waits = _kernel(folder)
        except OSError:
            continue  # it has ended
        found.append(f"thread {folder.name} {name}: state {status}{f', in {waits}' if waits else ''}")
    return found


def _kernel(folder: Path) -> str:
    try:
        waits = (folder / "wchan").read_text().strip()
    except OSError:
        return ""  # kernels may keep it from users
    return "" if waits == "0" else waits


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False
