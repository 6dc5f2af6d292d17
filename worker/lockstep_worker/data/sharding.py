"""Who trains on which samples: the same global batches, whatever the number of ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def steps_in(samples: int, batch_size: int, ranks: int) -> int:
    """Full global batches in an epoch. The ragged rest is left out: the next epoch's order puts other samples there.

    A smaller last batch would weigh its samples more than the others', and differ between divisions into ranks.
    """
    return samples // (batch_size * ranks)


def batch(samples: int, epoch: int, step: int, *, batch_size: int, rank: int, ranks: int, seed: int) -> Tensor:
    """The indices of this rank's samples in step ``step`` (0 for the first) of an epoch; shape (batch_size,), int64.

    Every rank draws the same permutation of the epoch. Global batch ``step`` is its slice of ``batch_size * ranks``,
    and rank ``r`` has the ``r``-th part of that slice: R ranks with batches of B have the batches of 1 rank with R * B.
    """
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    first = (step * ranks + rank) * batch_size
    return order[first : first + batch_size]


def shard(samples: int, *, rank: int, ranks: int) -> Tensor:
    """The indices that this rank evaluates: each sample is one rank's; shares differ by at most one."""
    return torch.arange(samples)[rank::ranks]
