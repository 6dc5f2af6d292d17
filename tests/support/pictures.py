"""Folders of small JPEGs, of real photographs where a test trains on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    """A JPEG of coarse coloured noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    Image.fromarray(np.kron(colours, np.ones((8, 8, 1), np.uint8))).save(path, quality=90)


def folder_of_pictures(
    folder: Path, classes: tuple[str, ...] = ("cat", "dog"), train: int = 6, held_out: int = 3
) -> Path:
    """``train`` and ``held_out`` pictures of each class, all different."""
    for number, name in enumerate(classes):
        for part, count in (("train", train), ("validation", held_out)):
            for one in range(count):
                picture(folder / part / name / f"{one:03}.jpg", seed=1000 * number + 100 * (part == "train") + one)
    return folder


def truncate(path: Path) -> None:
    """Leaves the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
