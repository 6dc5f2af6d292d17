"""``Snapshot``: the tensors of one moment, copied into one buffer that the next snapshot uses again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.tree import DTYPES, flatten, name_of, unflatten

ALIGNMENT = 64
"""Bytes: a tensor begins where any of its dtypes may be read in place."""
Place = tuple[str, list[int], int]
"""Of one tensor: its dtype's name, its shape, and the byte at which it begins."""


class Snapshot:
    """A buffer for one state at a time. As large as the state; made at the first ``take``, and when the state grows."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0, dtype=torch.uint8)
        self.places: list[Place] = []

    @torch.no_grad()
    def take(self, tensors: Sequence[Tensor]) -> None:
        """Copies ``tensors``; all that the training thread is held up for."""
        places, size = lay_out(tensors)
        if self.buffer.numel() != size:
            # Memory that was never touched is mapped page by page at the first write: done here, once.
            self.buffer = torch.zeros(size, dtype=torch.uint8)
        self.places = places
        for tensor, place in zip(tensors, places):  # noqa: B905 - Python 3.9
            tensor_at(self.buffer, place).copy_(tensor)


def lay_out(tensors: Sequence[Tensor]) -> tuple[list[Place], int]:
    """Where each tensor goes in one buffer, and how many bytes that takes."""
    places: list[Place] = []
    end = 0
    for tensor in tensors:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        places.append((name_of(tensor.dtype), list(tensor.shape), start))
        end = start + tensor.numel() * tensor.element_size()
    return places, end


def tensor_at(buffer: Tensor, place: Any) -> Tensor:  # noqa: ANN401 - a Place, or what a file says is one
    """The tensor at ``place`` of a buffer, sharing its memory. Raises ``CheckpointError`` where there can be none."""
    try:
        name, shape, start = place
        dtype = DTYPES[name]
        count = 1
        for length in shape:
            if not isinstance(length, int) or length < 0:
                raise ValueError(f"a length of {length!r}")
            count *= length
        if not isinstance(start, int) or start < 0:
            raise ValueError(f"a beginning at {start!r}")
        stop = start + count * dtype.itemsize
        if stop > buffer.numel():
            raise ValueError(f"bytes up to {stop} of {buffer.numel()}")
        return buffer[start:stop].view(dtype).view(tuple(shape))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"it has no tensor at {str(place)[:80]}: {error}") from error


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor: its own memory where it is contiguous, else a copy."""
    array: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def pack(state: Any) -> bytes:  # noqa: ANN401 - a nested state
    """A small state in one piece, for one rank to tell another; ``unpack`` is the inverse."""
    document, tensors = flatten(state)
    snapshot = Snapshot()
    snapshot.take(tensors)
    text = json.dumps([document, snapshot.places], separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + memory_of(snapshot.buffer)


def unpack(packed: bytes) -> Any:  # noqa: ANN401
    """The state that ``pack`` told, with tensors of its own. Raises ``CheckpointError``."""
    length = int.from_bytes(packed[:8], "little")
    try:
        document, places = json.loads(packed[8 : 8 + length])
    except ValueError as error:
        raise CheckpointError(f"what a rank said of itself cannot be read: {error}") from error
    body = bytearray(packed[8 + length :])
    buffer = torch.frombuffer(body, dtype=torch.uint8) if body else torch.empty(0, dtype=torch.uint8)
    own = buffer.clone()  # aligned as torch wants it, and longer-lived than the bytes
    return unflatten(document, [tensor_at(own, place) for place in places])
