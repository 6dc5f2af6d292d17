"""Data made up as it is needed, for measuring how fast a training is; nothing is stored.

Sample ``i`` is the same on every rank and in every run with the same seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

HELD_OUT = 16


class SyntheticImageNet:
    """ImageNet's shape without ImageNet: noise of 3 x ``size`` x ``size`` in ``classes`` classes; nothing to learn."""

    def __init__(
        self, train: int, seed: int, *, size: int = 224, classes: int = 1000, held_out: int = HELD_OUT
    ) -> None:
        self.train = train
        self.held_out = held_out
        self._seed = seed
        self._size = size
        self.classes = classes

    def fingerprint(self) -> str:
        """All follow from the seed."""
        return f"synthetic-{self._seed}"

    def train_batch(self, indices: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - as they are
        """Images (n, 3, size, size), standard normal, and classes (n,)."""
        images = torch.stack([self._image(index) for index in indices.tolist()])
        return images, indices % self.classes

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, from the samples behind those to train on."""
        return self.train_batch(indices + self.train)

    def _image(self, index: int) -> Tensor:
        return torch.randn(3, self._size, self._size, generator=_generator(self._seed, index))


class SyntheticTokens:
    """Texts of ``context`` tokens out of ``vocabulary``, each token followed by always the same one: easy to learn.

    The tokens stand in a circle, in an order drawn from the seed; a text is a piece of the circle, begun anywhere.
    """

    def __init__(self, train: int, seed: int, *, vocabulary: int, context: int, held_out: int = HELD_OUT) -> None:
        self.train = train
        self.held_out = held_out
        self._seed = seed
        self._context = context
        self._circle = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))
        self.classes = vocabulary

    def fingerprint(self) -> str:
        """All follow from the seed."""
        return f"synthetic-{self._seed}"

    def train_batch(self, indices: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - as they are
        """Tokens (n, context), and those that follow each of them (n, context), both int64."""
        vocabulary = len(self._circle)
        begins = [
            torch.randint(vocabulary, (1,), generator=_generator(self._seed, index)) for index in indices.tolist()
        ]
        texts = self._circle[(torch.stack(begins) + torch.arange(self._context + 1)) % vocabulary]
        return texts[:, :-1], texts[:, 1:]

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, from the samples behind those to train on."""
        return self.train_batch(indices + self.train)


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 2_000_003 + index)
