"""``Buffers``: the memory that a layout describes; gradients are views of it, in their parameters' own shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lockstep_worker.gradients.dtypes import dtype_name
from lockstep_worker.gradients.pieces import CONTROL, DRIFT, HEADER, Layout, Size

LEAST_ITEM = 4
"""Bytes of an element that a number is told in."""


class Buffers:
    """One flat tensor per dtype, zeros at first. Parameters are known by their numbers in ``parameters``."""

    def __init__(self, parameters: Sequence[Tensor], layout: Layout) -> None:
        dtypes = {dtype_name(one.dtype): one.dtype for one in parameters}
        flat = {name: torch.zeros(length, dtype=dtypes[name]) for name, length in layout.lengths.items()}
        self._flat = flat
        self.cut(layout)
        self.views: Mapping[int, Tensor] = {
            number: _view(flat[dtype_name(parameters[number].dtype)], start, parameters[number])
            for number, start in layout.starts.items()
        }
        self._flags = {
            number: flat[dtype_name(parameters[number].dtype)][at : at + 1] for number, at in layout.flags.items()
        }
        self._headers = [
            (flat[name], torch.tensor([at for number, at in layout.flags.items() if _is(parameters[number], name)]))
            for name in flat
        ]
        first = next(iter(layout.flags))
        dtype = dtype_name(parameters[first].dtype)
        self._first = flat[dtype].numpy()
        """The same memory: NumPy is a tenth of torch's price for a few elements."""
        words = flat[dtype][layout.flags[first] :]
        self._control, self._drift = words[CONTROL : CONTROL + 1], words[DRIFT : DRIFT + 1]
        self._headers_of_first = [at for number, at in layout.flags.items() if _is(parameters[number], dtype)]
        self._places: list[int] | None = None

    def cut(self, layout: Layout) -> None:
        """Other pieces of the same memory: where a tensor is depends on the sequence alone, not on what is cut."""
        self.pieces = [self._flat[piece.dtype][piece.start : piece.stop] for piece in layout.pieces]

    def mark_used(self) -> None:
        """Every tensor is used, until ``mark_absent``."""
        for flat, at in self._headers:
            flat.index_fill_(0, at, 1.0)

    def mark_absent(self, number: int) -> None:
        """This rank has no gradient of the tensor: zeros, and the flag."""
        self.views[number].zero_()
        self._flags[number].zero_()

    def was_used(self, number: int) -> bool:
        """Whether any rank had a gradient of it, once it is averaged."""
        return bool(self._flags[number].item() > 0)

    def say(self, *, wants: bool, drifts: bool) -> None:
        """Tells the other ranks, with the step's gradients, what this one wants: a new plan, another measurement."""
        self._control.fill_(1.0 if wants else 0.0)
        self._drift.fill_(1.0 if drifts else 0.0)

    def tell(self, value: float, rank: int, ranks: int) -> bool:
        """Tells the other ranks a number of this one, to some seven digits; False where the headers have no room.

        Each rank has an element of its own there, and zeros in the others': the average is each one's share of it.
        """
        if self._places is None:
            item = self._first.itemsize
            # A half has too few digits for it.
            free = range(DRIFT + 1, HEADER // item) if item >= LEAST_ITEM else range(0)
            places = [at + one for at in self._headers_of_first[: -(-ranks // max(1, len(free)))] for one in free]
            self._places = places[:ranks]
        if len(self._places) < ranks:
            return False
        self._first[self._places] = 0.0
        self._first[self._places[rank]] = value
        return True

    def told(self, ranks: int) -> list[float]:
        """What each rank has told, by rank, once it is averaged."""
        assert self._places is not None
        return [float(one) * ranks for one in self._first[self._places]]

    def share_that_wants(self) -> float:
        """The share of the ranks that do, once all is averaged."""
        return float(self._control.item())

    def any_drifts(self) -> bool:
        """Whether any rank has said so, once all is averaged: all ranks read the same."""
        return bool(self._drift.item() > 0)


def size_of(parameter: Tensor) -> Size:
    """A parameter as a layout sees it."""
    return Size(parameter.numel(), parameter.element_size(), dtype_name(parameter.dtype))


def _is(parameter: Tensor, dtype: str) -> bool:
    return dtype_name(parameter.dtype) == dtype


def _view(flat: Tensor, start: int, parameter: Tensor) -> Tensor:
    """As autograd lays out a gradient: with the parameter's own strides where these are dense, else row by row."""
    if _is_dense(parameter):
        return flat.as_strided(parameter.size(), parameter.stride(), start)
    return flat[start : start + parameter.numel()].view(parameter.size())


def _is_dense(parameter: Tensor) -> bool:
    expected = 1
    for stride, size in sorted(zip(parameter.stride(), parameter.size())):  # noqa: B905 - Python 3.9
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True
