"""A file system that is small enough to be filled by a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small(folder: Path, size: str = "3m") -> Iterator[Path]:
    """``folder``, made anew, as a file system of 3 MiB, or of ``size`` as tmpfs takes it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, room: int = 0) -> Path:
    """Leaves ``room`` bytes of it; returns the file whose removal makes room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left"):
            file.writelines(b"x" * 4096 for _ in range(1000))
        file.truncate(max(0, file.tell() - room))
    return filler
