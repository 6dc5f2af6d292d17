"""ResNet-50 (He et al., arXiv 1512.03385, table 1), with the stride in the 3 x 3 convolution as is usual since.

Batch normalisation is per rank: its running statistics differ between ranks, its parameters do not.
"""

from __future__ import annotations

from torch import Tensor, nn

from lockstep_worker.models.layers import normalised

# Of each of the four stages: blocks, channels inside a block, stride of its first block.
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
EXPANSION = 4


class Bottleneck(nn.Module):
    """1 x 1 down, 3 x 3, 1 x 1 up, added to what came in."""

    def __init__(self, inside: int, channels: int, stride: int) -> None:
        super().__init__()
        outside = channels * EXPANSION
        self.body = nn.Sequential(
            normalised(inside, channels, 1),
            nn.ReLU(inplace=True),
            normalised(channels, channels, 3, stride),
            nn.ReLU(inplace=True),
            normalised(channels, outside, 1),
        )
        self.shortcut = nn.Identity() if inside == outside and stride == 1 else normalised(inside, outside, 1, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """(n, inside, h, w) -> (n, 4 * channels, h / stride, w / stride)."""
        out: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return out


def resnet50(classes: int = 1000) -> nn.Module:
    """25,557,032 parameters with 1,000 classes; (n, 3, h, w) -> (n, classes).

    224 x 224 is the published size. From 32 x 32 on any will do; at 32 x 32 the statistics need two images a batch.
    """
    layers: list[nn.Module] = [normalised(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    inside = 64
    for blocks, channels, stride in STAGES:
        for block in range(blocks):
            layers.append(Bottleneck(inside, channels, stride if block == 0 else 1))
            inside = channels * EXPANSION
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))
