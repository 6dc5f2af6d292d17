"""Which names of files are Lockstep's own."""

from __future__ import annotations

import re

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_file_name(name: str) -> bool:
    """Whether ``name`` is one that Lockstep gives to a file."""
    return _FILE_NAME.fullmatch(name) is not None
