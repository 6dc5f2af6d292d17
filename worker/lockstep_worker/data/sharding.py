"""Who trains on which samples: the same order of an epoch, whatever the number of ranks, and whenever that changes.

An epoch's order follows from the seed and the epoch alone. How far a training has come in it is counted in samples of
all ranks together, not in steps: so one that goes on with another number of ranks, or another batch, goes on right
behind the last sample that was trained on, and takes none twice.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def steps_left(samples: int, done: int, *, batch_size: int, ranks: int, cap: int | None = None) -> int:
    """Full global batches that an epoch of ``samples`` still has when ``done`` of them were trained on.

    The ragged rest is left out, and the next epoch's order puts other samples there: a smaller last batch would weigh
    its samples more than the others', and differ between divisions into ranks.
    ``cap`` is a number of steps, of this batch and these ranks, that an epoch has at most from its beginning on.
    """
    global_batch = batch_size * ranks
    end = samples if cap is None else min(samples, cap * global_batch)
    return max(0, end - done) // global_batch


@lru_cache(maxsize=2)
def order(samples: int, epoch: int, seed: int) -> Tensor:
    """The order of an epoch, a permutation of 0 to ``samples`` - 1; shape (samples,), int64. Not to be written to.

    It is kept for the epoch: one of ImageNet's size takes some 20 ms to draw.
    """
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def behind(samples: int, epoch: int, done: int, *, batch_size: int, rank: int, seed: int) -> Tensor:
    """The indices of this rank's samples in the step behind the first ``done`` samples of an epoch; int64.

    Rank ``r`` has the ``r``-th part of the global batch, which is what comes next in the order; shape (batch_size,): R
    ranks with batches of B have the batches of 1 rank with R * B. Empty behind the order's end.
    """
    first = done + rank * batch_size
    return order(samples, epoch, seed)[first : first + batch_size]


def shard(samples: int, *, rank: int, ranks: int) -> Tensor:
    """The indices that this rank evaluates: each sample is one rank's; shares differ by at most one."""
    return torch.arange(samples)[rank::ranks]
