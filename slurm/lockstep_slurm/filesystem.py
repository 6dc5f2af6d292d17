"""What file system a folder is on; on a network's, other machines see it, and SQLite's locks cannot be trusted."""

from __future__ import annotations

from pathlib import Path

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "panfs", "wekafs",
     "glusterfs", "orangefs", "pvfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.beegfs", "fuse.s3fs"}
)  # fmt: skip


def network_filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The kind of network file system that ``folder`` is on, such as ``nfs4``; None for a local one."""
    kind = filesystem(folder, mounts)
    return kind if kind in NETWORK else None


def filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that ``folder`` is on, or would be, as the kernel names it: ``ext4``, ``nfs4``."""
    kind, longest = "", -1
    resolved = folder.resolve()
    for line in mounts.read_text("utf-8", "surrogateescape").splitlines():
        _device, where, found, *_rest = line.split()
        point = Path(where.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # The last of equal mount points is the one on top.
        if (resolved == point or point in resolved.parents) and len(point.parts) >= longest:
            kind, longest = found, len(point.parts)
    return kind
