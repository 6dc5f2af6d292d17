"""Layers that several models are made of; convolutions begin as He et al. say (arXiv 1502.01852)."""

from __future__ import annotations

from torch import nn


def normalised(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, and its batch normalisation; (n, inside, h, w) -> (n, outside, h / stride, ...)."""
    conv = nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


def convolution(inside: int, outside: int, kernel: int, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    """A convolution with bias, and a ReLU; without ``padding`` it keeps the image's size at a stride of 1."""
    conv = nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2 if padding is None else padding)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type] # made with a bias
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def head(inside: int, classes: int, dropout: float, width: int = 4096) -> nn.Sequential:
    """The three linear layers of AlexNet and VGG, dropout after the first two; (n, inside) -> (n, classes).

    They begin with a standard deviation of 0.01, as in both papers.
    """
    layers: list[nn.Module] = []
    for before, outside in ((inside, width), (width, width), (width, classes)):
        linear = nn.Linear(before, outside)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(inplace=True), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])
