"""Data for the built-in recipes, by the names that a spec uses."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from lockstep_worker.recipe import Recipe


class DataSet(Protocol):
    """Samples to train on and samples held out, by index."""

    train: int
    """How many there are to train on."""
    held_out: int
    """How many there are to evaluate on."""

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, channels, height, width) as float32, and their classes (n,) as int64.

        Of texts: tokens (n, positions), and at each position the next token (n, positions), both int64.
        """

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of the held-out samples."""


def load(recipe: Recipe, ranks: int) -> DataSet:
    """The data of a recipe. Raises ``ValueError`` for a name that there is not."""
    if recipe.data == "digits":
        from lockstep_worker.data.digits import Digits

        return Digits()
    train = (recipe.steps_per_epoch or 10) * recipe.batch_size * ranks
    if recipe.data == "synthetic-imagenet":
        from lockstep_worker.data.synthetic import SyntheticImageNet

        return SyntheticImageNet(train, recipe.seed, size=recipe.image_size, classes=recipe.classes)
    if recipe.data == "synthetic-tokens":
        from lockstep_worker.data.synthetic import SyntheticTokens

        return SyntheticTokens(train, recipe.seed, vocabulary=recipe.gpt.vocabulary, context=recipe.gpt.context)
    raise ValueError(f"there is no data {recipe.data!r}; use digits, synthetic-imagenet or synthetic-tokens")
