"""Claiming an attempt, and following the rank that did (docs/decisions/0002; standard library only).

The claim is a complete temporary file that is ``link()``ed to the next free number: of all claimants, on local and on
network file systems alike, one gets each number, and no service is asked.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from pathlib import Path

from lockstep_slurm.job.rundir import Claim, as_json, claim_file, newest_fence, read_claims
from lockstep_slurm.job.writing import write_whole
from lockstep_worker.errors import DuplicateError, FencedError
from lockstep_worker.waiting import until
from lockstep_worker.world import World


def claim(run: Path, world: World) -> Claim:
    """Rank 0's claim of the next attempt.

    Raises ``DuplicateError`` when the job is somebody else's, having told the other ranks so.
    """
    while True:
        newest = max(read_claims(run), key=lambda found: found.fence, default=None)
        if newest is not None and not _is_restart(newest, world):
            refusal = _refusal(newest, world)
            write_whole(_refused_file(run, world), json.dumps({"version": 1, "message": refusal}))
            raise DuplicateError(refusal)
        number = 1 if newest is None else newest.fence + 1
        made = Claim(
            attempt=number,
            fence=number,
            slurm_job_id=world.slurm_job_id,
            restart_count=world.restart_count,
            cluster=world.cluster,
            node=world.node,
            nodes=world.nodes,
            ranks=world.size,
            host=socket.gethostname(),
            pid=os.getpid(),
            claimed=time.time(),
            step_id=world.step_id,
            local_id=world.local_id,
        )
        if link_whole(claim_file(run, number), as_json(made)):
            return made
        # Somebody was faster: whose claim it is decides whether there is anything left to claim.


def follow(run: Path, world: World, patience: float | None = None) -> Claim:
    """The claim of this rank's own rank 0, waited for by listing (a network file system caches that a name is absent).

    Raises ``DuplicateError`` when rank 0 was refused, ``MeetingError`` when neither happened in time.
    """

    def answer() -> Claim | None:
        for found in read_claims(run):
            if _execution(found) == world.execution:
                return found
        refused = _refused_file(run, world)
        if refused.name in os.listdir(refused.parent):  # noqa: PTH208
            raise DuplicateError(str(json.loads(refused.read_text(encoding="utf-8"))["message"]))
        return None

    return until(answer, lambda: f"rank {world.rank} on {world.node} saw no claim by rank 0 in {run}/claims", patience)


def check_fence(run: Path, fence: int) -> None:
    """Raises ``FencedError`` when a newer attempt has been claimed; called before each write that it could disturb."""
    newest = newest_fence(run)
    if newest > fence:
        raise FencedError(f"attempt {newest} has been claimed, so attempt {fence} writes nothing more and ends")


def link_whole(path: Path, text: str) -> bool:
    """Makes ``path`` with ``text``, complete, unless it exists; returns whether it was this call that made it."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    write_whole(partial, text)
    try:
        os.link(partial, path)
    except FileExistsError:
        # An NFS server's answer may be lost and the call repeated: two names of one file mean that it had worked.
        return partial.stat().st_nlink == 2
    else:
        return True
    finally:
        partial.unlink()


def _is_restart(newest: Claim, world: World) -> bool:
    """Whether ``world`` is a requeue of the very job that holds the newest claim."""
    same = (newest.cluster, newest.slurm_job_id, newest.local_id) == (world.cluster, world.slurm_job_id, world.local_id)
    return same and newest.restart_count < world.restart_count


def _refusal(newest: Claim, world: World) -> str:
    holder, other = _name(newest.slurm_job_id, newest.local_id), _name(world.slurm_job_id, world.local_id)
    return (
        f"this is a second copy of the job: {holder}, restart {newest.restart_count}, claimed it as attempt "
        f"{newest.attempt} on {newest.node}, so {other}, restart {world.restart_count}, does not train; "
        f"to train again, submit a new job"
    )


def _name(slurm_job_id: int | None, local_id: str | None) -> str:
    return f"local run {local_id}" if slurm_job_id is None else f"Slurm job {slurm_job_id}"


def _execution(found: Claim) -> tuple[str, int | None, int | None, str | None, int]:
    return (found.cluster, found.slurm_job_id, found.step_id, found.local_id, found.restart_count)


def _refused_file(run: Path, world: World) -> Path:
    who = world.local_id if world.slurm_job_id is None else f"{world.slurm_job_id}.{world.step_id}"
    return run / "claims" / f"refused-{who}-{world.restart_count}.json"
