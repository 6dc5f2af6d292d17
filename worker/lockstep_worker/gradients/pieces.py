"""What is sent together: small tensors packed into one piece, large ones cut into several. Pure.

The tensors of one dtype form a stream in the order of their first use, each behind a header of ``HEADER`` bytes whose
first element says whether any rank used the tensor. The stream is cut into pieces, at a tensor's end where one is near:
a tensor over the limit fills up the piece before it and shares its last one with what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

HEADER = 64
"""Bytes before each tensor, and what its start is a multiple of: one cache line."""
CONTROL, DRIFT = 1, 2
"""The elements of a header that carry words to all ranks, in the stream's first header; 0 is the used-flag."""


@dataclass(frozen=True)
class Size:
    """One tensor: its elements, the bytes of each, and the name of its dtype."""

    elements: int
    item: int
    dtype: str


@dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``stop`` of the buffer of ``dtype``; the tensors that have elements in it."""

    dtype: str
    start: int
    stop: int
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where everything is, by the tensors' numbers: starts and flags in elements of their dtype's buffer."""

    pieces: tuple[Piece, ...]
    starts: dict[int, int]
    flags: dict[int, int]
    parts: dict[int, tuple[int, ...]]
    """The pieces that hold a tensor."""
    lengths: dict[str, int]
    """Elements of each dtype's buffer."""


@dataclass
class _Stream:
    length: int = 0
    cut: int = 0
    """Where the open piece begins."""
    open: list[int] = field(default_factory=list)
    """Tensors in the open piece."""


def lay_out(sizes: Sequence[Size], sequence: Sequence[int], piece_bytes: int) -> Layout:
    """Packs the tensors of ``sequence`` (numbers in ``sizes``), in that order, into pieces of ``piece_bytes`` at most.

    A tensor that would fit into a piece is not cut where the piece before it is more than half full. Raises
    ``ValueError`` for a limit of less than two headers.
    """
    if piece_bytes < 2 * HEADER:
        raise ValueError(f"piece_bytes is {piece_bytes}; a piece has at least {2 * HEADER} bytes")
    pieces: list[Piece] = []
    starts: dict[int, int] = {}
    flags: dict[int, int] = {}
    streams: dict[str, _Stream] = {}
    items: dict[str, int] = {}

    def close(dtype: str, stream: _Stream, at: int) -> None:
        if at > stream.cut:
            pieces.append(Piece(dtype, stream.cut, at, tuple(stream.open)))
            stream.cut, stream.open = at, []

    for number in sequence:
        size = sizes[number]
        stream = streams.setdefault(size.dtype, _Stream())
        items[size.dtype] = size.item
        header, limit = HEADER // size.item, piece_bytes // size.item
        needed = header + -(-size.elements // header) * header
        filled = stream.length - stream.cut
        if filled + needed > limit and filled > 0 and (filled + header >= limit or (needed <= limit < 2 * filled)):
            close(size.dtype, stream, stream.length)
        flags[number] = stream.length
        starts[number] = stream.length + header
        stream.length += needed
        stream.open.append(number)
        while stream.length - stream.cut > limit:
            close(size.dtype, stream, stream.cut + limit // header * header)
            stream.open.append(number)
    for dtype, stream in streams.items():
        close(dtype, stream, stream.length)
    parts: dict[int, list[int]] = {number: [] for number in sequence}
    for index, piece in enumerate(pieces):
        for number in piece.tensors:
            parts[number].append(index)
    return Layout(
        tuple(pieces), starts, flags, {number: tuple(found) for number, found in parts.items()},
        {dtype: stream.length for dtype, stream in streams.items()},
    )  # fmt: skip
