"""Files of token ids, ``train.bin`` and ``validation.bin``: 2 or 4 bytes each, without a header, memory-mapped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lockstep_worker.errors import DataError

FILES = ("train.bin", "validation.bin")
TYPES = {"uint16": "<u2", "uint32": "<u4"}
"""By the spec's names; little-endian, as every machine that writes them is."""


def type_for(vocabulary: int) -> str:
    """The type that a file is taken to have where the spec names none: the smaller one that holds the vocabulary."""
    return "uint16" if vocabulary <= 1 << 16 else "uint32"


class Tokens:
    """Texts of ``context`` tokens, one behind the other: sample ``i`` begins at token ``i * context`` of its file."""

    def __init__(self, folder: Path, *, vocabulary: int, context: int, type_name: str | None = None) -> None:
        """Maps both files. Raises ``DataError`` for one that is not there, is too short, or has half a token."""
        self._type = np.dtype(TYPES[type_name or type_for(vocabulary)])
        self._context = context
        self.classes = vocabulary
        self._train = _File(folder / FILES[0], self._type, vocabulary, context)
        self._held_out = _File(folder / FILES[1], self._type, vocabulary, context)
        self.train = self._train.samples
        self.held_out = self._held_out.samples

    def fingerprint(self) -> str:
        """A digest of both files' sizes and first samples: equal where an index means the same text."""
        return f"{self._train.digest()}-{self._held_out.digest()}"

    def train_batch(self, indices: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - the same in each
        """Tokens (n, context), and those that follow each of them (n, context), both int64.

        Raises ``DataError`` for a token that is not in the vocabulary.
        """
        return self._train.batch(indices)

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of the file that is held out."""
        return self._held_out.batch(indices)


class _File:
    """One file of tokens."""

    def __init__(self, path: Path, kind: np.dtype[np.unsignedinteger], vocabulary: int, context: int) -> None:
        self._path = path
        self._vocabulary = vocabulary
        self._context = context
        try:
            size = path.stat().st_size
            if size % kind.itemsize:
                raise DataError(
                    f"{path}: has {size} bytes, which are no whole tokens of {kind.itemsize}; see training.token_type"
                )
            if size // kind.itemsize <= context:
                raise DataError(
                    f"{path}: has {size // kind.itemsize} tokens, and one sample needs {context + 1} "
                    "(training.gpt.context, and the token behind it)"
                )
            self._tokens: NDArray[np.unsignedinteger] = np.memmap(path, kind, mode="r")
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read: {error.strerror}; training.data_path has to name a folder with "
                f"{' and '.join(FILES)} that every compute node sees"
            ) from None
        self.samples = (len(self._tokens) - 1) // context

    def digest(self) -> str:
        digest = hashlib.sha256(str(len(self._tokens)).encode())
        digest.update(self._tokens[: self._context + 1].tobytes())
        return digest.hexdigest()[:16]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        texts = np.empty((len(indices), self._context + 1), np.int64)
        for row, index in enumerate(indices.tolist()):
            begin = index * self._context
            texts[row] = self._tokens[begin : begin + self._context + 1]
        if texts.size and texts.max() >= self._vocabulary:
            self._complain(indices, texts)
        both = torch.from_numpy(texts)
        return both[:, :-1], both[:, 1:]

    def _complain(self, indices: Tensor, texts: NDArray[np.int64]) -> None:
        row, column = np.argwhere(texts >= self._vocabulary)[0].tolist()
        place = int(indices[row]) * self._context + column
        raise DataError(
            f"{self._path}: token {place} is {texts[row, column]}, beyond the vocabulary of {self._vocabulary}; set "
            f"training.gpt.vocabulary, or training.token_type if these are no {self._tokens.dtype.name}"
        )
