"""A folder of JPEGs: ``train/<class>/*.jpg`` and ``validation/<class>/*.jpg``, decoded as they are needed.

What is cut out of an image, and whether it is mirrored, follows from (seed, epoch, sample) alone: it is the same
whichever rank or loader reads it, and however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lockstep_worker.data.broken import Broken
from lockstep_worker.data.listing import Listing
from lockstep_worker.errors import DataError

ENDINGS = (".jpg", ".jpeg")
PARTS = ("train", "validation")
AREA = (0.08, 1.0)
"""Share of an image that a training crop has, drawn evenly (Szegedy et al., arXiv 1409.4842, section 6)."""
RATIO = (3 / 4, 4 / 3)
"""Its width over its height, drawn evenly in its logarithm."""
TRIES = 10
"""Crops drawn until one lies within the image; then its largest centred one within ``RATIO``."""
CENTRE = 224 / 256
"""Share of the shorter side that is evaluated, a square in the middle: 224 of an image shrunk to 256."""
MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's red, green and blue, from 0 to 1; the customary ones, by which any picture comes near [-2, 2]."""
DEVIATION = (0.229, 0.224, 0.225)

Box = tuple[float, float, float, float]
"""Left, upper, right, lower, in pixels."""


class Images:
    """Images of ``size`` x ``size`` in as many classes as ``train`` has folders, numbered by their names' order."""

    def __init__(self, folder: Path, *, size: int, seed: int, skip_broken: bool = False) -> None:
        """Lists the files; reads none. Raises ``DataError`` for a folder or a class without any.

        ``skip_broken``: in place of a training image that cannot be decoded comes the next one in the list, and one
        held out is left out; otherwise it ends the training.
        """
        self._folder = folder
        self._size = size
        self._seed = seed
        self._skip_broken = skip_broken
        self.broken = Broken()
        self._train = Listing.of_folder(folder / PARTS[0], ENDINGS)
        self._held_out = Listing.of_folder(folder / PARTS[1], ENDINGS, known=self._train.classes)
        self.train = len(self._train)
        self.held_out = len(self._held_out)
        self.classes = len(self._train.classes)
        self._scale = 1 / (255 * np.array(DEVIATION, dtype=np.float32))
        self._shift = np.array(MEAN, dtype=np.float32) / np.array(DEVIATION, dtype=np.float32)

    def fingerprint(self) -> str:
        """A digest of all classes' and files' names: equal where the same index means the same image."""
        return f"{self._train.digest()}-{self._held_out.digest()}"

    def train_batch(self, indices: Tensor, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Crops (n, 3, size, size) as float32 and their classes (n,) as int64. Raises ``DataError``."""
        images, classes = self._empty(len(indices))
        for row, index in enumerate(indices.tolist()):
            classes[row] = self._train.class_of(self._crop_or_next(index, epoch, images[row]))
        return torch.from_numpy(images), torch.from_numpy(classes)

    def held_out_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Centres of held-out images; fewer than ``indices`` where broken ones are skipped."""
        images, classes = self._empty(len(indices))
        row = 0
        for index in indices.tolist():
            if self._decoded(self._held_out.path(index), self._centre, images[row]):
                classes[row] = self._held_out.class_of(index)
                row += 1
        return torch.from_numpy(images[:row]), torch.from_numpy(classes[:row])

    def _empty(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return np.empty((count, 3, self._size, self._size), np.float32), np.empty(count, np.int64)

    def _crop_or_next(self, index: int, epoch: int, into: NDArray[np.float32]) -> int:
        """Decodes sample ``index``, or the next one that is whole; returns which it was."""
        for ahead in range(self.train):
            chosen = (index + ahead) % self.train
            # Philox counts (Salmon et al., SC'11): a generator for each sample costs no more than its key.
            draw = np.random.Generator(np.random.Philox(key=np.array([self._seed, (epoch << 32) + index], np.uint64)))
            if self._decoded(self._train.path(chosen), partial(self._crop, draw=draw), into):
                return chosen
        raise DataError(f"{self._folder / PARTS[0]}: none of its {self.train} images can be decoded")

    def _decoded(self, path: Path, cut: Callable[[Image.Image], Image.Image], into: NDArray[np.float32]) -> bool:
        """Whether the image at ``path`` could be decoded, ``cut``, and written to ``into`` (3, size, size)."""
        try:
            with Image.open(path, formats=("JPEG",)) as image:
                pixels = np.asarray(cut(image))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the file system's word, not the decoder's
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            self._break(path, error)
            return False
        for channel in range(3):
            np.multiply(pixels[:, :, channel], self._scale[channel], out=into[channel])
            np.subtract(into[channel], self._shift[channel], out=into[channel])
        return True

    def _break(self, path: Path, error: Exception) -> None:
        """Counts an image that cannot be decoded, and names it once. Raises where it is not to be skipped."""
        if not self._skip_broken:
            raise DataError(
                f"{path}: cannot be decoded as a JPEG: {error}; remove or replace it, or set "
                'training.broken_images = "skip"'
            ) from error
        self.broken.add(str(path), str(error))

    def _crop(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        box = crop_box(image.width, image.height, draw)
        mirrored = draw.random() < 0.5
        cut = shrunk(image, box, self._size)
        return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else cut

    def _centre(self, image: Image.Image) -> Image.Image:
        return shrunk(image, centre_box(image.width, image.height), self._size)


def crop_box(width: int, height: int, draw: np.random.Generator) -> Box:
    """A crop of an image of these many pixels: by area and ratio at random, in whole pixels."""
    for _ in range(TRIES):
        area = width * height * draw.uniform(*AREA)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, upper = int(draw.integers(width - wide + 1)), int(draw.integers(height - high + 1))
            return (left, upper, left + wide, upper + high)
    wide, high = min(width, round(height * RATIO[1]) or 1), min(height, round(width / RATIO[0]) or 1)
    left, upper = (width - wide) // 2, (height - high) // 2
    return (left, upper, left + wide, upper + high)


def centre_box(width: int, height: int) -> Box:
    """The square in the middle that is evaluated."""
    side = max(1, round(min(width, height) * CENTRE))
    left, upper = (width - side) // 2, (height - side) // 2
    return (left, upper, left + side, upper + side)


def shrunk(image: Image.Image, box: Box, size: int) -> Image.Image:
    """What ``box`` holds, in red, green and blue, as ``size`` x ``size``.

    A large JPEG is decoded at a half, a quarter or an eighth where that is still at least what is needed: it is the
    decoder's own way, exact in its blocks, and costs a fraction.
    """
    width, height = image.size
    wide, high = box[2] - box[0], box[3] - box[1]
    image.draft("RGB", (math.ceil(width * size / wide), math.ceil(height * size / high)))
    x, y = image.size[0] / width, image.size[1] / height
    inside = (box[0] * x, box[1] * y, min(box[2] * x, image.size[0]), min(box[3] * y, image.size[1]))
    plain = image if image.mode == "RGB" else image.convert("RGB")
    return plain.resize((size, size), Image.Resampling.BILINEAR, box=inside)
