"""GoogLeNet (Szegedy et al., arXiv 1409.4842, table 1), with batch normalisation and without auxiliary heads.

Plain, as published, its 22 layers have two auxiliary heads and local response normalisation to train at all. Batch
normalisation (arXiv 1502.03167) took their place in practice, and the heads were found not to speed up the early
training that they were meant for (arXiv 1512.00567, section 4). The 5 x 5 convolutions are the paper's, where some
implementations have 3 x 3. Batch normalisation is per rank, as in ResNet-50.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lockstep_worker.models.layers import normalised

# Of each module: channels of the 1 x 1 branch, between and behind the two convolutions of the 3 x 3 and of the 5 x 5
# branch, of the pooling branch. None: a pooling that halves the image.
MODULES = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def convolution(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, its normalisation, a ReLU."""
    return nn.Sequential(normalised(inside, outside, kernel, stride), nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Four branches over the same image, their channels one after the other."""

    def __init__(self, inside: int, channels: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, to3, three, to5, five, pool = channels
        self.outside = one + three + five + pool
        self.branches = nn.ModuleList(
            [
                convolution(inside, one, 1),
                nn.Sequential(convolution(inside, to3, 1), convolution(to3, three, 3)),
                nn.Sequential(convolution(inside, to5, 1), convolution(to5, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), convolution(inside, pool, 1)),
            ]
        )

    def forward(self, images: Tensor) -> Tensor:
        """(n, inside, h, w) -> (n, outside, h, w)."""
        return torch.cat([branch(images) for branch in self.branches], dim=1)


def googlenet(classes: int = 1000, dropout: float = 0.4) -> nn.Module:
    """7,005,832 parameters with 1,000 classes; (n, 3, h, w) -> (n, classes).

    The published 6,998,552, with a scale and a shift in place of each convolution's bias.
    224 x 224 is the published size. From 32 x 32 on any will do; at 32 x 32 the statistics need two images a batch.
    """
    layers: list[nn.Module] = [
        convolution(3, 64, 7, 2),
        nn.MaxPool2d(3, stride=2, padding=1),
        convolution(64, 64, 1),
        convolution(64, 192, 3),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    inside = 192
    for channels in MODULES:
        if channels is None:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        else:
            layers.append(module := Inception(inside, channels))
            inside = module.outside
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inside, classes)
    )
