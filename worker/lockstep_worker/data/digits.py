"""The handwritten digits that come with scikit-learn: 1,797 real images of 8 x 8 in 16 shades, nothing to download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor

HELD_OUT = 360
_SPLIT_SEED = 0


class Digits:
    """1,437 images to train on and 360 held out; the split is the same for every job, so that accuracies compare."""

    def __init__(self) -> None:
        images, classes = load_digits(return_X_y=True)
        order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(_SPLIT_SEED))
        # 16 shades to about [-1, 1]; as images of one channel.
        self._images = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 8 - 1
        self._classes = torch.as_tensor(classes, dtype=torch.int64)[order]
        self.held_out = HELD_OUT
        self.train = len(classes) - HELD_OUT
        self.classes = 10

    def fingerprint(self) -> str:
        """Every copy is the same."""
        return "digits"

    def train_batch(self, indices: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - as they are
        """Images (n, 1, 8, 8) and digits (n,)."""
        return self._images[indices + self.held_out], self._classes[indices + self.held_out]

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of the held-out samples."""
        return self._images[indices], self._classes[indices]
