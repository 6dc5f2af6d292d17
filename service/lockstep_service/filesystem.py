"""What a path leads to: a network file system, where SQLite's locks cannot be trusted; a run's own file, or not."""

from __future__ import annotations

import re
from pathlib import Path

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "panfs", "wekafs",
     "glusterfs", "orangefs", "pvfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.beegfs", "fuse.s3fs"}
)  # fmt: skip


def network_filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The kind of network file system that ``folder`` is on, such as ``nfs4``; None for a local one."""
    kind, longest = "", -1
    resolved = folder.resolve()
    for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
        _device, where, found, *_rest = line.split()
        point = Path(where.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # The last of equal mount points is the one on top.
        if (resolved == point or point in resolved.parents) and len(point.parts) >= longest:
            kind, longest = found, len(point.parts)
    return kind if kind in _NETWORK else None


def is_file_name(name: str) -> bool:
    """Whether ``name`` is one that Lockstep gives to a file."""
    return _FILE_NAME.fullmatch(name) is not None


def is_own_file(file: Path, run: Path) -> bool:
    """Whether ``file`` is a plain file inside ``run``: no pipe or device, and nothing that a link leads out to."""
    return file.is_file() and file.resolve().is_relative_to(run.resolve())


def is_own_folder(folder: Path, run: Path) -> bool:
    """Whether ``folder`` is a folder inside ``run``, and nothing that a link leads out to."""
    return folder.is_dir() and folder.resolve().is_relative_to(run.resolve())
