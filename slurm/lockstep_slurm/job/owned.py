"""Whether what lies beside the run directories is one's own, so that nobody else has put or changed it.

Standard library only, Python >= 3.9. A folder of run directories may be on a file system that every user may write to,
and what lies there under a name that can be guessed may be another's: what ranks import, and notes on runs by hand.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path


def not_own_folder(folder: Path) -> str | None:
    """Why another user may have put something into ``folder``, or another folder in its place; None: nobody may.

    The words go on behind the folder's name. Trusted are root, and of the folder around it the owner and the group that
    may write to it. Raises ``OSError`` for a folder that is not there.
    """
    if (why := not_own(folder)) is not None:
        return why
    if not folder.is_dir():
        return "is no folder"
    around = folder.parent.stat().st_mode
    # Not the group's: where each user has a group of his own, mkdir leaves it the right to write.
    if around & stat.S_IWOTH and not around & stat.S_ISVTX:
        return (
            f"lies in {folder.parent}, where every user may put another in its place (mode {stat.S_IMODE(around):04o}; "
            f"chmod +t {folder.parent} ends that)"
        )
    return None


def not_own(path: Path) -> str | None:
    """Why another user may have made or changed what is at ``path`` (which is not followed); None: nobody may.

    Raises ``OSError`` where there is nothing.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "is a link"
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to {_name_of(found.st_uid)}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written to by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _name_of(user: int) -> str:
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"the user with number {user}"
