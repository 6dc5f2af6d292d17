"""What lies in a folder of classes: a million files in some tens of bytes each, in an order that is their names'."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lockstep_worker.errors import DataError

SHOWN = 5
"""Names that an error lists at most."""


class Listing:
    """The files of a folder of classes, by index: those of the first class first, by their names."""

    def __init__(self, folder: Path, classes: Sequence[str], names: Iterable[tuple[int, bytes]]) -> None:
        """``names`` are (number of the class, the file's name), in order."""
        self.folder = folder
        self.classes = tuple(classes)
        numbers, found = [], []
        for number, name in names:
            numbers.append(number)
            found.append(name)
        # Texts of their own would be 100 bytes each, and a forked loader would copy all that it looks at.
        self._numbers = np.array(numbers, np.int32)
        self._ends = np.cumsum([len(name) for name in found], dtype=np.int64)
        self._names = b"".join(found)

    @classmethod
    def of_folder(cls, folder: Path, endings: Sequence[str], known: Sequence[str] | None = None) -> Listing:
        """Lists the folders of ``folder`` and the files in them with these ``endings`` (lower case; any case counts).

        Hidden ones are left out. ``known`` are the classes where they are known; each folder has to be one of them.
        Raises ``DataError`` for a folder that cannot be read, has no classes or an unknown one, and for an empty class.
        """
        there = sorted(entry.name for entry in _entries(folder) if entry.is_dir())
        if not there:
            raise DataError(f"{folder}: has no folders, where each class of images has one")
        classes = there if known is None else known
        if strange := sorted(set(there) - set(classes)):
            raise DataError(
                f"{folder}: has {_some(strange)}, which {'is' if len(strange) == 1 else 'are'} not among the "
                f"{len(classes)} classes to train on; remove or rename the folder"
            )
        names: list[tuple[int, bytes]] = []
        empty = []
        number_of = {name: number for number, name in enumerate(classes)}
        for name in there:
            found = sorted(
                os.fsencode(entry.name)
                for entry in _entries(folder / name)
                if os.path.splitext(entry.name)[1].lower() in endings  # noqa: PTH122 - a million times
            )
            names += [(number_of[name], file) for file in found]
            if not found:
                empty.append(name)
        if empty:
            raise DataError(
                f"{folder}: {_some(empty)} {'has' if len(empty) == 1 else 'have'} no file that ends in "
                f"{' or '.join(endings)}; fill or remove the folder"
            )
        return cls(folder, classes, names)

    def __len__(self) -> int:
        return len(self._numbers)

    def class_of(self, index: int) -> int:
        """The number of its class."""
        return int(self._numbers[index])

    def path(self, index: int) -> Path:
        """Where it lies."""
        begin = int(self._ends[index - 1]) if index else 0
        name: str = os.fsdecode(self._names[begin : int(self._ends[index])])
        return self.folder / self.classes[self.class_of(index)] / name

    def digest(self) -> str:
        """Of all that an index means, but for where the folder is."""
        digest = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogateescape"))
        for part in (self._numbers.tobytes(), self._ends.tobytes(), self._names):
            digest.update(part)
        return digest.hexdigest()[:16]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read: {error.strerror}; training.data_path has to name a folder with train/ and "
            "validation/ that every compute node sees"
        ) from None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:SHOWN]))
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
