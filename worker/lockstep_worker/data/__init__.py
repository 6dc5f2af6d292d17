"""Data for the built-in recipes, by the names that a spec uses."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from lockstep_worker.errors import DataError
from lockstep_worker.recipe import Recipe

FOLDERS = {"images": ("train", "validation"), "tokens": ("train.bin", "validation.bin")}
"""What the data that lie in a folder consist of, in it."""


class DataSet(Protocol):
    """Samples to train on and samples held out, by index."""

    train: int
    """How many there are to train on."""
    held_out: int
    """How many there are to evaluate on."""
    classes: int
    """How many different answers there are."""

    def fingerprint(self) -> str:
        """The same text where an index means the same sample: on every rank, whatever copy it reads."""

    def train_batch(self, indices: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Images (n, channels, height, width) as float32, and their classes (n,) as int64.

        Of texts: tokens (n, positions), and at each position the next token (n, positions), both int64. ``epoch`` is
        for data of which each epoch shows something else. Raises ``DataError`` for what cannot be read.
        """

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of the held-out samples; fewer where some are to be skipped."""


def load(recipe: Recipe, ranks: int, folder: Path | None = None) -> DataSet:
    """The data of a recipe; ``folder`` is where they lie if not at its ``data_path``.

    Raises ``ValueError`` for a name that there is not, ``DataError`` for a folder that is not what it should be.
    """
    if recipe.data in FOLDERS:
        return _stored(recipe, folder or Path(recipe.data_path or ""))
    if recipe.data == "digits":
        from lockstep_worker.data.digits import Digits

        return Digits()
    train = (recipe.steps_per_epoch or 10) * recipe.batch_size * ranks
    if recipe.data == "synthetic-imagenet":
        from lockstep_worker.data.synthetic import SyntheticImageNet

        return SyntheticImageNet(train, recipe.seed, size=recipe.image_size, classes=recipe.classes or 1000)
    if recipe.data == "synthetic-tokens":
        from lockstep_worker.data.synthetic import SyntheticTokens

        return SyntheticTokens(train, recipe.seed, vocabulary=recipe.gpt.vocabulary, context=recipe.gpt.context)
    raise ValueError(f"there is no data {recipe.data!r}; use digits, images, tokens, synthetic-imagenet or -tokens")


def _stored(recipe: Recipe, folder: Path) -> DataSet:
    if recipe.data == "tokens":
        from lockstep_worker.data.tokens import Tokens

        sizes = recipe.gpt
        return Tokens(folder, vocabulary=sizes.vocabulary, context=sizes.context, type_name=recipe.token_type)
    from lockstep_worker.data.images import Images

    skip = recipe.broken_images == "skip"
    images = Images(folder, size=recipe.image_size, seed=recipe.seed, skip_broken=skip)
    if recipe.classes not in (None, images.classes):
        raise DataError(
            f"{folder}: has {images.classes} classes in train/, and training.classes says {recipe.classes}; it may be "
            "left out"
        )
    return images
