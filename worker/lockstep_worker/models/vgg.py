"""VGG-16 (Simonyan and Zisserman, arXiv 1409.1556, table 1, column D), without normalisation as published.

Of its 528 MiB of parameters 392 are one matrix, ready early in the backward pass and needed late in the forward one:
what an exchange that cuts large tensors and orders them is judged on.
"""

from __future__ import annotations

from torch import nn

from lockstep_worker.models.layers import convolution, head

# Channels of the convolutions of each of the five stages; a stage ends with a pooling that halves the image.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SIDE = 7
"""Height and width of what the linear layers see: that of a 224 x 224 image behind the convolutions."""


def vgg16(classes: int = 1000, dropout: float = 0.5) -> nn.Module:
    """138,357,544 parameters with 1,000 classes; (n, 3, h, w) -> (n, classes).

    224 x 224 is the published size, 32 x 32 the smallest: other sizes are averaged (or repeated) to 7 x 7 before the
    linear layers, so that the parameters, and with them what is exchanged, are the same at each.
    """
    layers: list[nn.Module] = []
    inside = 3
    for stage in STAGES:
        for outside in stage:
            layers.append(convolution(inside, outside, 3))
            inside = outside
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(SIDE), nn.Flatten(), head(inside * SIDE * SIDE, classes, dropout)
    )
