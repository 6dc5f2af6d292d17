"""Two small models for 8 x 8 digits, without batch normalisation and dropout: ranks compute what one rank would."""

from __future__ import annotations

from torch import nn


def cnn() -> nn.Module:
    """Two convolutions, one pooling, two linear layers: 38 thousand parameters. (n, 1, 8, 8) -> (n, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def mlp() -> nn.Module:
    """Three linear layers: 26 thousand parameters. (n, 1, 8, 8) -> (n, 10)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
