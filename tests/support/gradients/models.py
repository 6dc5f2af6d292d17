"""What the cases train: small models, and the loss of a step of each."""

from __future__ import annotations

from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn import functional


def data(*shape: int) -> Tensor:
    """This rank's, of this step: the generator was seeded so."""
    return torch.randn(*shape)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 5))


def mlp_loss(model: Any, _step: int) -> Tensor:
    return functional.cross_entropy(model(data(6, 12)), torch.randint(0, 5, (6,)))


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def channels_last() -> nn.Module:
    model = convolutions()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def convolutions_loss(model: Any, _step: int) -> Tensor:
    return functional.cross_entropy(model(data(4, 3, 8, 8)), torch.randint(0, 5, (4,)))


def transformer() -> nn.Sequential:
    """out_proj of its attention is used without its module being called."""
    return nn.Sequential(
        nn.Linear(8, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 8),
    )  # fmt: skip


def transformer_loss(model: Any, _step: int) -> Tensor:
    inputs = data(3, 7, 8)
    return functional.mse_loss(model(inputs), inputs.flip(1))


class Tied(nn.Module):
    """A language model whose output is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.middle = nn.LSTM(16, 16, batch_first=True)
        self.output = nn.Linear(16, 50, bias=False)
        self.output.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(16))  # of the root itself

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.output(self.middle(self.embedding(tokens) * self.scale)[0])
        return found


def tied_loss(model: Any, _step: int) -> Tensor:
    tokens = torch.randint(0, 50, (3, 9))
    return functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Branches(nn.Module):
    """Which of its branches is used depends on the rank and the step; one never is."""

    def __init__(self, *, with_never: bool) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.last = nn.Linear(16, 5)
        if with_never:
            self.never = nn.Linear(3, 3)

    def forward(self, inputs: Tensor, branches: tuple[int, ...]) -> Tensor:
        hidden = self.first(inputs).tanh()
        for branch in branches:
            hidden = self.branches[branch](hidden).tanh()
        found: Tensor = self.last(hidden)
        return found


def branches_loss(model: Any, step: int) -> Tensor:
    # Each is used by one rank in every step: Horovod updates one that nobody used by a gradient of zeros.
    branches = ((0,), (2, 1)) if step % 2 else ((0, 1), (2,))
    return functional.cross_entropy(model(data(6, 12), branches[hvd.rank()]), torch.randint(0, 5, (6,)))


def functional_loss(model: Any, _step: int) -> Tensor:
    """Its weights are used by functions alone, before and after the model is called, and one without any call."""
    penalty = sum(one.square().sum() for one in model.parameters())
    hidden = functional.linear(data(6, 12), model[0].weight, model[0].bias)
    found: Tensor = functional.cross_entropy(model[1:](hidden), torch.randint(0, 5, (6,))) + 1e-3 * penalty
    return found


def frozen_mlp() -> nn.Sequential:
    model = mlp()
    for one in model[2].parameters():
        one.requires_grad_(False)
    return model


class Mixed(nn.Module):
    """Parameters of three dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.middle = nn.Linear(20, 20, dtype=torch.float64)
        self.coarse = nn.Linear(20, 20, dtype=torch.float16)
        self.last = nn.Linear(20, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.middle(self.first(inputs).tanh().double()).tanh()
        found: Tensor = self.last(self.coarse(hidden.half()).tanh().float())
        return found


def layers() -> nn.Sequential:
    """Three of 256 KiB: pieces of several sizes can be made of them."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(3)))


def layers_loss(model: Any, _step: int) -> Tensor:
    return functional.mse_loss(model(data(2, 256)), data(2, 256))


def autocast_loss(model: Any, step: int) -> Tensor:
    """A forward pass in bfloat16; an update that is done within it is not."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return transformer_loss(model, step)
