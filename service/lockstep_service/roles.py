"""What a process does of the service (the API, the dispatch, or both), and that no two do the same for one home."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from lockstep_slurm.errors import LockstepError

Role = Literal["all", "api", "dispatch"]
_API, _DISPATCH = "service", "dispatch"
_HOLDS: Final[dict[Role, tuple[str, ...]]] = {"all": (_API, _DISPATCH), "api": (_API,), "dispatch": (_DISPATCH,)}


class RoleError(LockstepError):
    """Another process has this role already."""


def note(home: Path, role: Role) -> Path:
    """Where a process of this role says, while it runs, which it is and where it listens."""
    return home / f"{_HOLDS[role][0]}.json"


def api_address(home: Path) -> str | None:
    """Where the API of this home listens; None while there is none, or while its note is being written."""
    try:
        return str(json.loads(note(home, "api").read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def alone(home: Path, role: Role) -> Iterator[None]:
    """Holds the role for this process: two dispatchers over one database would submit everything twice."""
    with ExitStack() as stack:
        for name in _HOLDS[role]:
            descriptor = os.open(home / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                what = "Another `lockstep serve`" if name == _API else "Another dispatch (`lockstep serve`)"
                raise RoleError(
                    f"{what} runs for {home}{_whose(home, name)}. Use that one, or end it first, or set LOCKSTEP_HOME."
                ) from None
        note(home, role).unlink(missing_ok=True)  # left over from one that was killed
        yield


def _whose(home: Path, name: str) -> str:
    """Who says that it runs; a dispatch that is one process with its API has only the API's note."""
    for file in (home / f"{name}.json", home / f"{_API}.json"):
        try:
            found = json.loads(file.read_text("utf-8"))
            return f" (process {found['pid']}, {found['url']})"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""
