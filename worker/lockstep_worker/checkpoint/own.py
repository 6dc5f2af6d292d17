"""What of a training's state is each rank's own: its random states, and the buffers in which it differs from rank 0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lockstep_worker.checkpoint import randomness
from lockstep_worker.checkpoint.ranks import Ranks
from lockstep_worker.checkpoint.snapshot import memory_of, pack, unpack


def packed(
    ranks: Ranks, things: Mapping[str, Any], generators: Mapping[str, torch.Generator], *, keep: bool
) -> list[Tensor]:
    """Of every rank, by rank, as bytes; nothing where this rank does not ``keep`` them. A collective of all ranks.

    Batch normalisation's statistics differ: each rank has seen its own share of the samples.
    """
    buffers = {
        f"{name} {buffer}": value
        for name, thing in things.items()
        if isinstance(thing, nn.Module)
        for buffer, value in thing.named_buffers()
        if value.device.type == "cpu"
    }
    digests = {key: hashlib.sha256(memory_of(value)).hexdigest() for key, value in buffers.items()}
    told = ranks.gather(json.dumps(digests).encode()) if buffers and ranks.size > 1 else []
    of_rank_0 = json.loads(told[0]) if told else digests
    differing: dict[str, dict[str, Tensor]] = {}
    for key, value in buffers.items():
        if of_rank_0.get(key) != digests[key]:
            name, _, buffer = key.partition(" ")
            differing.setdefault(name, {})[buffer] = value
    every = ranks.gather(pack({"random": randomness.states(generators), "buffers": differing}))
    return [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in every] if keep else []


def put_back(kept: Tensor, things: Mapping[str, Any]) -> Mapping[str, Any]:
    """Puts this rank's buffers back; returns its random states, which are restored when the training goes on."""
    own = unpack(kept.numpy().tobytes())
    for name, buffers in own["buffers"].items():
        here = dict(things[name].named_buffers())
        for buffer, value in buffers.items():
            here[buffer].copy_(value)
    random: Mapping[str, Any] = own["random"]
    return random
