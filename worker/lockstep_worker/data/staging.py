"""A data set copied to the node's own disk, once for all ranks there: whole or not at all, removed by its last user.

The copy's name has a digest of where the data lie and of every file's path, size and time, so what has changed is
copied anew and a whole copy is used again. Who copies or uses one holds a lock beside it, which ends with the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lockstep_worker.errors import DataError

THREADS = 8
"""Files copied at once: over a network each small one is mostly waited for."""
BLOCK = 4096
"""Bytes in which a disk gives room to a file."""
EVERY = 5.0
"""Seconds between two words of how far a copy is."""

Tell = Callable[["Progress"], None]


class Progress(NamedTuple):
    """How far a copy is."""

    copied_bytes: int
    total_bytes: int
    files: int
    """In all."""
    seconds: float
    """Since it began."""


class _Source(NamedTuple):
    """A file that is to be copied."""

    path: str
    """Within the data set."""
    size: int
    changed: int
    """Nanoseconds since the epoch."""


class Stage:
    """One process's use of a staged copy, from its making to ``leave``."""

    def __init__(self, source: Path, names: Sequence[str], disk: Path) -> None:
        """``names`` are what of the folder ``source`` is copied to ``disk``. Raises ``DataError`` if it cannot be."""
        self._source = source
        self._disk = disk
        self._folders: list[str] = []
        self._files = list(self._listed(names))
        said = repr((str(source.resolve()), self._files))
        digest = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.folder = disk / f"lockstep-data-{os.geteuid()}-{digest}"
        """Where the copy is, once ``fill`` has returned."""
        self._lock: int | None = None

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self._files)

    def fill(self, tell: Tell) -> bool:
        """Copies the data set, or finds that somebody has; returns whether it was this process.

        Waits while another process copies the same. ``tell`` is called as it goes on, and once at its end.
        Raises ``DataError`` where there is no room, or source or disk cannot be read or written; then nothing is left.
        """
        made = False
        try:
            while True:
                self._lock = self._locked(fcntl.LOCK_SH)
                if self._is_whole():
                    return made
                os.close(self._lock)
                self._lock = self._locked(fcntl.LOCK_EX)
                if not self._is_whole():
                    self._copy(tell)
                    made = True
                # From one lock to the other there is a moment without any, in which a last user may remove the copy.
                os.close(self._lock)
        except DataError:
            self.leave()
            raise
        except OSError as error:
            self.leave()
            raise DataError(
                f"{error.filename or self.folder}: cannot be staged to {self._disk}: {error.strerror}"
            ) from error

    def leave(self) -> None:
        """Ends the use of the copy; removes it if nobody else uses it."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass  # somebody else uses it, and will remove it
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock_file.unlink(missing_ok=True)
        finally:
            os.close(lock)

    @property
    def _lock_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    def _locked(self, how: int) -> int:
        """The lock, of the file that is there by its name: a last user removes it together with the copy."""
        while True:
            lock = os.open(self._lock_file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._is_ours(os.fstat(lock), self._lock_file)
            fcntl.flock(lock, how)
            try:
                if os.path.samestat(os.fstat(lock), os.lstat(self._lock_file)):
                    return lock
            except FileNotFoundError:
                pass
            os.close(lock)

    def _is_ours(self, found: os.stat_result, path: Path) -> None:
        """On a disk that everybody writes to, somebody else could have been there first."""
        if found.st_uid != os.geteuid():
            raise DataError(f"{path}: belongs to user {found.st_uid}; name another folder as training.stage")

    def _is_whole(self) -> bool:
        try:
            found = os.lstat(self.folder)
        except FileNotFoundError:
            return False
        self._is_ours(found, self.folder)
        try:  # a node that lost its power may keep a name without what was written
            return all((self.folder / file.path).stat().st_size == file.size for file in self._files)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _listed(self, names: Sequence[str]) -> Iterator[_Source]:
        """The files that are called so or lie in folders that are, by their paths' order; notes the folders."""
        for name in names:
            try:
                found = (self._source / name).stat()
                if stat.S_ISDIR(found.st_mode):
                    yield from self._within(name)
                else:
                    yield _Source(name, found.st_size, found.st_mtime_ns)
            except OSError as error:
                raise DataError(
                    f"{error.filename or self._source / name}: cannot be read: {error.strerror}; training.data_path "
                    "has to name a folder that every compute node sees"
                ) from None

    def _within(self, folder: str) -> Iterator[_Source]:
        self._folders.append(folder)
        with os.scandir(self._source / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{folder}/{entry.name}"
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from self._within(path)
                elif entry.is_file():
                    found = entry.stat()
                    yield _Source(path, found.st_size, found.st_mtime_ns)

    def _copy(self, tell: Tell) -> None:
        """All files to a folder beside, which then gets the copy's name. Held under the lock, so it is the only one."""
        partial = self.folder.with_name(f"{self.folder.name}.partial")
        _remove(partial)  # of one that was killed
        _remove(self.folder)
        self._ask_for_room()
        began = told = time.monotonic()
        copied = 0
        partial.mkdir(mode=0o700)
        try:
            for folder in self._folders:  # the empty ones as well: that they are empty is for the data to say
                (partial / folder).mkdir()
            with ThreadPoolExecutor(THREADS, "staging") as threads:
                try:
                    for size in threads.map(lambda file: self._copy_one(file, partial), self._files):
                        copied += size
                        if time.monotonic() >= told + EVERY:
                            told = time.monotonic()
                            tell(Progress(copied, self.bytes, len(self._files), told - began))
                except BaseException:
                    threads.shutdown(wait=True, cancel_futures=True)
                    raise
            partial.rename(self.folder)
        except BaseException:
            _remove(partial)
            raise
        tell(Progress(copied, self.bytes, len(self._files), time.monotonic() - began))

    def _copy_one(self, file: _Source, into: Path) -> int:
        shutil.copyfile(self._source / file.path, into / file.path)
        if (size := (into / file.path).stat().st_size) != file.size:
            raise DataError(
                f"{self._source / file.path}: had {file.size} bytes when staging began, and {size} when it was copied; "
                "let the data rest while a training begins"
            )
        return size

    def _ask_for_room(self) -> None:
        needed = sum(-(-file.size // BLOCK) * BLOCK for file in self._files)
        try:
            free = shutil.disk_usage(self._disk).free
        except FileNotFoundError:
            raise DataError(f"{self._disk}: there is no such folder on this node; see training.stage") from None
        if needed > free:
            raise DataError(
                f"{self._disk}: has {free / 1e9:.1f} GB free, and {self._source} needs {needed / 1e9:.1f} GB; name "
                "another folder as training.stage, or leave it out"
            )


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        raise OSError(errno.ENOTDIR, "is no folder of ours", str(folder)) from error
