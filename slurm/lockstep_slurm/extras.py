"""How an optional part of Lockstep is installed (standard library only, Python >= 3.9)."""

from __future__ import annotations


def install(extra: str) -> str:
    """The command. By a path: the package index has a package of our name that is somebody else's."""
    return f"pip install '.[{extra}]' in a clone of Lockstep"
