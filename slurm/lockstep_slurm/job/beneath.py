"""Opening what lies in a run directory, beneath it and nowhere else (standard library only, Python >= 3.9).

A job writes its run directory, so a name in it may be a link to anywhere, a pipe that nobody ever fills, or a device;
and it may become one between a look and the opening. So nothing is looked at first: each part of a path is opened in
the folder before it, no link is followed below the run directory, nor is that one itself a link, and only then it is
asked what was opened (what Linux's openat2 calls RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, for paths without "..").
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# O_NONBLOCK: a pipe without a writer is opened at once, and refused, where it would be waited for without end.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotPlainError(OSError):
    """There is something of this name, and it is no plain file, or no folder, of the run's own."""


def open_file(run: Path, *names: str) -> BinaryIO:
    """The plain file ``run/names...``, opened for reading bytes.

    ``FileNotFoundError`` when there is none, ``NotPlainError`` when it is no such file or a part of its path is a link.
    """
    with _opened_folder(run, names[:-1]) as folder:
        descriptor = _open(names[-1], _FILE, folder, run, names)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_plain(run, names)
    return os.fdopen(descriptor, "rb")


def read_file(run: Path, *names: str, limit: int) -> bytes:
    """The whole of such a file; ``NotPlainError`` also when it is longer than ``limit`` bytes."""
    with open_file(run, *names) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise NotPlainError(errno.EFBIG, f"it is longer than {limit} bytes", str(run.joinpath(*names)))
    return content


def file_state(run: Path, *names: str) -> os.stat_result:
    """What is known of such a file, without opening it; raises as ``open_file``."""
    with _opened_folder(run, names[:-1]) as folder:
        found = os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise _not_plain(run, names)
    return found


def names_in(run: Path, *names: str) -> list[str]:
    """The names in the folder ``run/names...``, in no order; raises as ``open_file``."""
    with _opened_folder(run, names) as folder:
        return os.listdir(folder)  # noqa: PTH208 - of a descriptor


@contextmanager
def _opened_folder(run: Path, names: tuple[str, ...]) -> Iterator[int]:
    """A descriptor of the folder ``run/names...``."""
    descriptor = _open(str(run), _FOLDER, None, run, ())
    try:
        for index, name in enumerate(names):
            inner = _open(name, _FOLDER, descriptor, run, names[: index + 1])
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, flags: int, folder: int | None, run: Path, names: tuple[str, ...]) -> int:
    if folder is not None and (name in {"", ".", ".."} or "/" in name):
        raise ValueError(f"{name!r} is no name of a file in a folder")
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        # A link: ELOOP, or where a folder was asked for ENOTDIR. A socket, or a device that is not there: ENXIO.
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}:
            raise _not_plain(run, names) from None
        raise OSError(error.errno, error.strerror, str(run.joinpath(*names))) from None


def _not_plain(run: Path, names: tuple[str, ...]) -> NotPlainError:
    what = "it is a link, or no plain file or folder of the run's own, and is not followed"
    return NotPlainError(errno.ELOOP, what, str(run.joinpath(*names)))
