"""AlexNet in its one-tower form (Krizhevsky, arXiv 1404.5997): most of its parameters are in the first linear layer."""

from __future__ import annotations

from torch import nn

from lockstep_worker.models.layers import convolution, head

SIDE = 6
"""Height and width of what the linear layers see: that of a 224 x 224 image behind the convolutions."""


def alexnet(classes: int = 1000, dropout: float = 0.5) -> nn.Module:
    """61,100,840 parameters with 1,000 classes; (n, 3, h, w) -> (n, classes).

    224 x 224 is the published size, 63 x 63 the smallest: other sizes are averaged (or repeated) to 6 x 6 before the
    linear layers, so that the parameters, and with them what is exchanged, are the same at each.
    """
    return nn.Sequential(
        convolution(3, 64, 11, stride=4, padding=2),
        nn.MaxPool2d(3, stride=2),
        convolution(64, 192, 5),
        nn.MaxPool2d(3, stride=2),
        convolution(192, 384, 3),
        convolution(384, 256, 3),
        convolution(256, 256, 3),
        nn.MaxPool2d(3, stride=2),
        nn.AdaptiveAvgPool2d(SIDE),
        nn.Flatten(),
        head(256 * SIDE * SIDE, classes, dropout),
    )
