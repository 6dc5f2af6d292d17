"""The ranks of one node: a private folder where they meet, and who is in it.

The folder is on the node's own disk: many ranks cost the shared one a single file (standard library only).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim, placement_file
from lockstep_slurm.job.writing import write_whole
from lockstep_worker.addresses import Host
from lockstep_worker.errors import WorkerError
from lockstep_worker.waiting import until
from lockstep_worker.world import World

# sun_path holds 108 bytes; the socket's name and a margin come after the folder's.
_PATH_LIMIT = 90


def node_folder(run: Path, claim: Claim, world: World) -> Path:
    """The folder that this node's ranks of this attempt share, mode 0700; the first rank to ask makes it.

    Raises ``WorkerError`` when somebody else has put something there.
    """
    name = folder_name(run, claim.attempt, world.node)
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > _PATH_LIMIT:
        folder = Path("/tmp") / name  # noqa: S108 - a socket's path is short; the checks below are what makes it safe
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise WorkerError(f"{folder} on {world.node} is not a folder of ours alone; remove it or set TMPDIR")
    return folder


def folder_name(run: Path, attempt: int, node: str) -> str:
    """What that folder is called, under ``TMPDIR``."""
    key = hashlib.sha256(f"{run}\0{attempt}\0{node}".encode()).hexdigest()[:20]
    return f"lockstep-{os.getuid()}-{key}"


def remove_folder(folder: Path) -> None:
    """Removes it with what is left in it."""
    shutil.rmtree(folder, ignore_errors=True)


def leave_folder(folder: Path, world: World) -> None:
    """A rank is done with it: local rank 0 removes it; one that came after that, what it made itself.

    While local rank 0 is there it may still have to read what the others left.
    """
    if world.local_rank == 0:
        remove_folder(folder)
        return
    if (folder / "0.json").exists():
        return
    for suffix in ("json", "heard", "beat", "stacks", "seen", "hung"):
        (folder / f"{world.local_rank}.{suffix}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are still in it
        folder.rmdir()


def told(folder: Path, world: World, granted: list[int] | None) -> None:
    """Tells the ranks of this node which CPUs (Linux ids) this one was given; None: it has heard from all of them."""
    own = {"rank": world.rank, "local_rank": world.local_rank, "pid": os.getpid(), "granted": granted}
    write_whole(folder / f"{world.local_rank}.{'heard' if granted is None else 'json'}", json.dumps(own))


def wait_for_all(folder: Path, world: World) -> list[dict[str, Any]]:
    """What every rank of this node was given, by local rank, once all have said so."""
    return _all_of(folder, world, "json")


def wait_until_heard(folder: Path, world: World) -> None:
    """Local rank 0's, who removes the folder in the end: until no other rank has to read there any more."""
    _all_of(folder, world, "heard")


def _all_of(folder: Path, world: World, suffix: str) -> list[dict[str, Any]]:
    files = [folder / f"{local_rank}.{suffix}" for local_rank in range(world.local_size)]

    def read() -> list[dict[str, Any]] | None:
        return [json.loads(file.read_text()) for file in files] if all(file.exists() for file in files) else None

    def missing() -> str:
        absent = ", ".join(file.stem for file in files if not file.exists())
        return (
            f"not all {world.local_size} ranks of {world.node} started: local rank {absent} left no word in {folder} "
            "(which one with a TMPDIR of its own does not know: give all ranks of a node the same)"
        )

    return until(read, missing)


def read_hosts(run: Path, claim: Claim) -> dict[str, Host]:
    """What every node of the attempt says of itself, by node name; waits for all, and names those that never came."""
    folder = placement_file(run, claim.attempt, claim.node).parent

    def missing() -> list[str]:
        present = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - a listing is not cached for long
        return [node for node in claim.nodes if f"{node}.json" not in present]

    until(lambda: None if missing() else True, lambda: f"no word from {', '.join(missing())}")
    found = {node: placement_file(run, claim.attempt, node) for node in claim.nodes}
    return {node: Host.parse(json.loads(path.read_text())["host"]) for node, path in found.items()}
