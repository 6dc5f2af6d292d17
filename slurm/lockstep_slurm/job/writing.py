"""Files that are there whole or not at all, whatever happens meanwhile (standard library only, Python >= 3.9)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes ``path`` so that a reader sees all of it or none: another name, flushed, then renamed. Mode 0600."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        write_new({partial: text})
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_new(texts: Mapping[Path, str]) -> None:
    """Writes files that are not there yet, and flushes them.

    Flushed once all are written: a file that is made right behind a flush waits for the file system's journal.
    """
    with ExitStack() as stack:
        files: list[int] = []
        for path, text in texts.items():
            files.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            stack.callback(os.close, files[-1])
            # Not through a file object, which asks the file system thrice what it is writing to.
            rest = text.encode("utf-8")
            while rest:
                rest = rest[os.write(files[-1], rest) :]
        # Said first of all of them, it has the writing begun, so that the first flush has the journal written for all.
        # Of a file alone it gains nothing, and has each CPU disturbed, those that compute as well.
        with suppress(OSError):  # a kernel, or a container's filter, may not know it
            for file in files if len(files) > 1 else ():
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        for file in files:
            os.fsync(file)
