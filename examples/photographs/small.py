"""A model of one's own: a function that returns it is all that a spec names, and only the job imports it."""

from __future__ import annotations

from torch import nn


def build(width: int = 16, classes: int = 2) -> nn.Module:
    """Three convolutions; (n, 3, h, w) -> (n, classes)."""
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )
