"""ImageNet's shape without ImageNet: 3 x 224 x 224 noise in 1,000 classes, for measuring how fast a training is."""

from __future__ import annotations

import torch
from torch import Tensor

CLASSES = 1000


class SyntheticImageNet:
    """Sample ``i`` is the same image on every rank and in every run with the same seed; nothing is stored."""

    def __init__(self, train: int, seed: int, held_out: int = 16) -> None:
        self.train = train
        self.held_out = held_out
        self._seed = seed

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 3, 224, 224), standard normal, and classes (n,)."""
        images = torch.stack([self._image(index) for index in indices.tolist()])
        return images, indices % CLASSES

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, from the samples behind those to train on."""
        return self.train_batch(indices + self.train)

    def _image(self, index: int) -> Tensor:
        return torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(self._seed * 2_000_003 + index))
