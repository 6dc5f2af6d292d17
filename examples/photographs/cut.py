"""Cuts the two photographs that come with scikit-learn into small JPEGs: a folder of images to train on, in a second.

    python examples/photographs/cut.py [FOLDER]

A patch that is held out shares no pixel with one that is trained on: those are from the right quarter of a photograph.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

SIDE = 64
STRIDE = 24
HELD_OUT = 3 / 4
"""Where the part that is held out begins, from the left, as a share of the width."""


def cut(folder: Path) -> dict[str, int]:
    """Writes ``train/<photograph>/*.jpg`` and ``validation/<photograph>/*.jpg``; returns how many each part has."""
    counts = {"train": 0, "validation": 0}
    photographs = load_sample_images()
    for name, pixels in zip(photographs.filenames, photographs.images):  # noqa: B905 - Python 3.9
        photograph = Image.fromarray(pixels)
        border = round(photograph.width * HELD_OUT)
        for part, begin, end in (("train", 0, border), ("validation", border, photograph.width)):
            target = folder / part / Path(name).stem
            target.mkdir(parents=True, exist_ok=True)
            for left in range(begin, end - SIDE + 1, STRIDE):
                for upper in range(0, photograph.height - SIDE + 1, STRIDE):
                    patch = photograph.crop((left, upper, left + SIDE, upper + SIDE))
                    patch.save(target / f"{left:03}-{upper:03}.jpg", quality=92)
                    counts[part] += 1
    return counts


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "patches"
    counts = cut(folder)
    print(f"{counts['train']} patches to train on and {counts['validation']} held out, in {folder}")
