"""What is known of the environment that ranks run in: the facts that the checks of ``rank_checks`` judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NEEDED = ("torch", "cloudpickle", "psutil", "yaml", "cffi", "packaging")
"""What every rank imports, by way of Horovod."""
RECIPES = ("numpy", "sklearn", "PIL")
"""What the built-in recipes import besides; together they are what the extra ``worker`` brings."""


@dataclass(frozen=True)
class Horovod:
    """Horovod as it is installed; ``edits`` and ``mpi`` are None without a note of ``lockstep worker build``."""

    version: str
    torch: str | None
    """The torch that it was built for, by its own note."""
    edits: tuple[str, ...] | None = None
    mpi: str | None = None


@dataclass(frozen=True)
class Loaded:
    """What importing torch and Horovod in a process of its own said."""

    gloo: bool = False
    mpi: bool = False
    error: str | None = None
    """The last line of what went wrong."""


@dataclass(frozen=True)
class NoPython:
    """What was given as the ranks' Python does not run as one on this machine."""

    python: Path
    why: str


@dataclass(frozen=True)
class Ranks:
    """One environment."""

    python: Path
    own: bool
    """Whether it is the one that the command itself runs in."""
    version: tuple[int, int]
    missing: tuple[str, ...]
    """Modules of ``NEEDED`` and ``RECIPES`` that are not there."""
    torch: str | None
    cuda_packages: int
    horovod: Horovod | None
    loaded: Loaded | None
    """None unless it was asked for."""
    tools: frozenset[str]
    """Which of g++, make and strip are on PATH, and ``Python.h`` if this Python has its headers."""
