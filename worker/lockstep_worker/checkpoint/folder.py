"""The folder of a run's checkpoints: their names, which of them stay, and a file that appears whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lockstep_slurm.job.rundir import CHECKPOINT_NAME

SUFFIX = ".lockstep"
_PARTIAL = re.compile(r"\.step-[0-9]+-attempt-[0-9]+\.lockstep\.[0-9a-f]+\.partial")


@dataclass(frozen=True, order=True)
class Name:
    """One checkpoint's place in the order of a run: a later attempt is newer, whatever its step."""

    attempt: int
    step: int

    @property
    def file(self) -> str:
        """``step-000000120-attempt-2.lockstep``."""
        return f"step-{self.step:09d}-attempt-{self.attempt}{SUFFIX}"

    @classmethod
    def parse(cls, file: str) -> Name | None:
        """The inverse of ``file``; None for another's."""
        found = CHECKPOINT_NAME.fullmatch(file)
        return cls(int(found[2]), int(found[1])) if found else None


def names(folder: Path) -> list[Name]:
    """The checkpoints in ``folder``, newest first; none where it is not there."""
    try:
        found = [Name.parse(file) for file in os.listdir(folder)]  # noqa: PTH208 - a listing is not cached for long
    except FileNotFoundError:
        return []
    return sorted((name for name in found if name is not None), reverse=True)


def kept(scores: Mapping[Name, float | None], keep: int) -> set[Name]:
    """Which of these stay: the newest ``keep``, and of those with a score the best (of equal ones the newest)."""
    newest = sorted(scores, reverse=True)[:keep]
    scored = {name: score for name, score in scores.items() if score is not None}
    best = max(scored, key=lambda name: (scored[name], name), default=None)
    return {*newest, *([best] if best is not None else [])}


def remove(folder: Path, every: Iterable[Name]) -> None:
    """Removes these checkpoints; one that has gone already is none the worse."""
    for name in every:
        (folder / name.file).unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Removes what saves that were cut short have left; called where no other save can be under way."""
    for file in os.listdir(folder):  # noqa: PTH208
        if _PARTIAL.fullmatch(file):
            (folder / file).unlink(missing_ok=True)


def save(folder: Path, name: Name, write: Callable[[BinaryIO], Any], check: Callable[[], None]) -> int:
    """Makes the checkpoint ``name`` by ``write``, whole and on the disk, or not at all; returns its bytes.

    ``check`` is asked right before it appears, and may raise. Raises ``OSError`` as the file system does; whatever is
    raised, what was there before is there still, and nothing else.
    """
    partial = folder / f".{name.file}.{secrets.token_hex(4)}.partial"
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            write(_Whole(file))  # type: ignore[arg-type]
            size = file.tell()
            os.fsync(file.fileno())
        check()
        partial.replace(folder / name.file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(folder)
    return size


def sync(folder: Path) -> None:
    """Brings the folder's own entries to the disk: a renamed file is found after a crash, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Whole:
    """A raw file whose ``write`` writes all of it: the kernel may take a part, the last time with an error."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 - FileIO
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        return len(data)
