"""The exit record: how the attempt ended, by the first rank with bad news, else by rank 0 (standard library only)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lockstep_slurm.job.rundir import Claim, Exit, as_json, exit_file
from lockstep_slurm.job.writing import write_whole
from lockstep_worker.claim import check_fence, link_whole
from lockstep_worker.sentences import Words
from lockstep_worker.world import World


def record(
    run: Path, claim: Claim, world: World, returncode: int, message: str | None = None, *, goes_on: bool = False
) -> None:
    """Writes how this rank ended, where that says something new of the attempt.

    ``returncode`` is ``subprocess``'s: negative for the signal that ended the training. A success, and that all ranks
    have stopped to go on later (``goes_on``), is rank 0's to write. A success never replaces anything; the first
    failure replaces a success; a later failure writes nothing.
    Raises ``FencedError`` when a newer attempt has been claimed: then nothing is written.
    """
    if world.rank != 0 and (returncode == 0 or goes_on):
        return
    check_fence(run, claim.fence)
    ended = Exit(
        attempt=claim.attempt,
        fence=claim.fence,
        code=returncode if returncode >= 0 else None,
        signal=-returncode if returncode < 0 else None,
        rank=world.rank,
        node=world.node,
        message=message or _message(world, returncode),
        ended=time.time(),
    )
    path = exit_file(run, claim.attempt)
    if returncode == 0:
        link_whole(path, as_json(ended))
        return
    # Who makes this name is the first to fail, and alone may replace what is there; the others find the name taken.
    if link_whole(_failure_file(run, claim), as_json(ended)):
        write_whole(path, as_json(ended))


def has_failed(run: Path, claim: Claim) -> bool:
    """Whether a rank of the attempt has written a failure."""
    first = _failure_file(run, claim)
    return first.name in os.listdir(first.parent)  # noqa: PTH208 - a listing is not cached for long


def _failure_file(run: Path, claim: Claim) -> Path:
    return exit_file(run, claim.attempt).with_name(f".{claim.attempt}.failure")


def _message(world: World, returncode: int) -> str | None:
    if returncode == 0:
        return None
    who = f"rank {world.rank} on {world.node}"
    if returncode == 1 and world.size > 1:
        return f"{who} ended with exit code 1; what is first in the log is the cause, maybe another rank's"
    if returncode > 0:
        return f"{who} ended with exit code {returncode}; its last words are in the log"
    return f"{who} was ended by {signal_name(-returncode)}"


def raised(world: World, returncode: int, words: Words) -> str:
    """The sentence on a training that ended by an exception of which nobody here knows more."""
    who = f"rank {world.rank} on {world.node}"
    what = f"{who} ended with exit code {returncode} ({words.sentence(who)})"
    if returncode == 1 and world.size > 1:
        return f"{what}; what is first in the log is the cause, maybe another rank's"
    return f"{what}; its last words are in the log"


def signal_name(number: int) -> str:
    """``9`` -> ``signal 9 (SIGKILL)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
