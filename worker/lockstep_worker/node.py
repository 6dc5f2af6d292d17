"""The ranks of one node: a private folder where they meet, and the file that says what the node planned.

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim, placement_file, write_whole
from lockstep_slurm.placement import RankPlacement
from lockstep_worker.addresses import Host, this_host
from lockstep_worker.errors import WorkerError
from lockstep_worker.waiting import until
from lockstep_worker.world import World

# sun_path holds 108 bytes; the socket's name and a margin come after the folder's.
_PATH_LIMIT = 90


def node_folder(run: Path, claim: Claim, world: World) -> Path:
    """The folder that this node's ranks of this attempt share, mode 0700; the first rank to ask makes it.

    Raises ``WorkerError`` when somebody else has put something there.
    """
    key = hashlib.sha256(f"{run}\0{claim.attempt}\0{world.node}".encode()).hexdigest()[:20]
    name = f"lockstep-{os.getuid()}-{key}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > _PATH_LIMIT:
        folder = Path("/tmp") / name  # noqa: S108 - a socket's path is short; the checks below are what makes it safe
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise WorkerError(f"{folder} on {world.node} is not a folder of ours alone; remove it or set TMPDIR")
    return folder


def remove_folder(folder: Path) -> None:
    """Removes it with what is left in it."""
    shutil.rmtree(folder, ignore_errors=True)


def leave_folder(folder: Path, world: World) -> None:
    """A rank is done with it: local rank 0 removes it; one that came after that, what it made itself."""
    if world.local_rank == 0:
        remove_folder(folder)
        return
    (folder / f"{world.local_rank}.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are still in it
        folder.rmdir()


def publish_rank(folder: Path, world: World, granted: list[int], placement: RankPlacement) -> None:
    """Tells the node's local rank 0 what this rank was given, and what it makes of it. CPUs are Linux ids."""
    own = {"rank": world.rank, "local_rank": world.local_rank, "granted": granted, **asdict(placement)}
    write_whole(folder / f"{world.local_rank}.json", json.dumps(own))


def publish_node(run: Path, claim: Claim, world: World, folder: Path) -> None:
    """Local rank 0's: waits for the other ranks of the node, then writes ``placement/<attempt>/<node>.json``."""

    def all_ranks() -> list[Any] | None:
        files = [folder / f"{local_rank}.json" for local_rank in range(world.local_size)]
        return [json.loads(file.read_text()) for file in files] if all(file.exists() for file in files) else None

    ranks = until(all_ranks, lambda: f"not all {world.local_size} ranks of {world.node} started")
    document = {
        "version": 1,
        "attempt": claim.attempt,
        "node": world.node,
        "host": this_host().document(),
        "ranks": ranks,
    }
    path = placement_file(run, claim.attempt, world.node)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, json.dumps(document))


def read_hosts(run: Path, claim: Claim) -> dict[str, Host]:
    """What every node of the attempt says of itself, by node name; waits for all, and names those that never came."""
    folder = placement_file(run, claim.attempt, claim.node).parent

    def missing() -> list[str]:
        present = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - a listing is not cached for long
        return [node for node in claim.nodes if f"{node}.json" not in present]

    until(lambda: None if missing() else True, lambda: f"no word from {', '.join(missing())}")
    found = {node: placement_file(run, claim.attempt, node) for node in claim.nodes}
    return {node: Host.parse(json.loads(path.read_text())["host"]) for node, path in found.items()}
