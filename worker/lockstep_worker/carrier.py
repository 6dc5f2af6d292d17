"""What carries a recipe's gradients: Horovod, which its ranks are of, or beside it torch's Gloo or TCP of our own."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from lockstep_slurm.job.cycle import MOST_RANKS_OVER_TCP
from lockstep_worker.environment import GLOO_TIMEOUT
from lockstep_worker.errors import MeetingError
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.tcp import TcpTransport
from lockstep_worker.gradients.transport import GlooTransport, HorovodTransport, Transport
from lockstep_worker.recipe import Recipe

MEETING = timedelta(seconds=GLOO_TIMEOUT)
"""How long ranks wait for each other before there is a group, as Horovod's Gloo does."""


@contextmanager
def torchs_group(recipe: Recipe, ranks: int) -> Iterator[None]:
    """All ranks are one process group of torch's within it, if the recipe's gradients go over Gloo.

    Not a rank alone, which has nothing to exchange. At the end, a training's or an error's, the exchange over it is
    closed and the group is destroyed. Raises ``MeetingError`` where the ranks do not meet.
    """
    if recipe.transport != "gloo" or ranks == 1:
        yield
        return
    with _meeting():
        # Where they meet and by which interface is in the environment: MASTER_ADDR and _PORT, GLOO_SOCKET_IFNAME.
        dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=ranks, timeout=MEETING)
    # Gloo's threads end with the last who knows the group: an optimizer in a cycle, or in the frame of a function that
    # failed. One that wants something of Python while that ends aborts the process (torch 2.13, Python 3.11).
    try:
        yield
    except BaseException as error:
        dist.destroy_process_group()
        _clear_frames(error)
        raise
    else:
        dist.destroy_process_group()
    finally:
        gc.collect()


def carrier_of(recipe: Recipe) -> Transport:
    """What carries the recipe's pieces. Over Gloo and over TCP a collective of all ranks.

    A rank alone has nothing to carry, and connects to nobody. Where nothing is said of it, TCP is taken by a few ranks
    whose Horovod goes over TCP as well, and Horovod if they do not reach each other. Raises ``MeetingError`` where they
    do not, and it was asked for.
    """
    if recipe.transport == "gloo" and dist.is_initialized():
        with _meeting():
            return GlooTransport("recipe")
    horovod = HorovodTransport("recipe")
    if horovod.size == 1 or not (recipe.transport == "tcp" or _suits_tcp(recipe, horovod.size)):
        return horovod
    try:
        return TcpTransport(horovod)
    except GradientError as error:  # on all ranks alike
        if recipe.transport == "auto":
            if horovod.rank == 0:
                print(f"lockstep: {error}: Horovod carries the gradients", file=sys.stderr)
            return horovod
        raise MeetingError(
            f'communication.transport is "tcp", but {error} (or leave '
            "communication.transport out: Horovod carries the gradients then)"
        ) from error


def _suits_tcp(recipe: Recipe, ranks: int) -> bool:
    """Whether gradients go over TCP though nobody said so: by Horovod they would go over Gloo, and so over TCP, too."""
    over_gloo = os.environ.get("HOROVOD_CPU_OPERATIONS") == "gloo"
    return recipe.transport == "auto" and recipe.exchange == "lockstep" and over_gloo and ranks <= MOST_RANKS_OVER_TCP


@contextmanager
def _meeting() -> Iterator[None]:
    """What torch says where ranks do not reach each other, by its store or by Gloo, with what to do."""
    try:
        yield
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise MeetingError(
            f"the ranks did not meet in torch.distributed at {where}: {error}; see that nodes reach each other there, "
            "and by Gloo's own ports, or leave communication.transport out"
        ) from error


def _clear_frames(error: BaseException) -> None:
    """Empties the frames of the error's traceback, and of those that it came from."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]
