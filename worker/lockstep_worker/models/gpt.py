"""A small GPT: pre-norm blocks, causal attention, learned positions (Radford et al. 2019, "GPT-2"), without dropout.

Every parameter is used by calling its own module, so that hooks see each use. With ``tied`` the embedding is also the
last layer's matrix: its gradient is complete only at the end of the backward pass, and needed first in the forward one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    """Each position looks at itself and at those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """(n, positions, width) -> the same shape."""
        n, positions, width = states.shape
        split = self.into(states).view(n, positions, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, positions, width))
        return out


class Block(nn.Module):
    """Attention, then two linear layers, each normalised before and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.linear = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, states: Tensor) -> Tensor:
        """(n, positions, width) -> the same shape."""
        states = states + self.attention(states)
        out: Tensor = states + self.linear(states)
        return out


class GPT(nn.Module):
    """Scores of the next token at each position."""

    def __init__(self, *, vocabulary: int, context: int, layers: int, heads: int, width: int, tied: bool) -> None:
        if width % heads:
            raise ValueError(f"width is {width}, which {heads} heads do not divide; take a multiple of {heads}")
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.1.out.weight", "linear.3.weight")):
                # So that the sum along the residual path does not grow with the number of layers.
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5)
        if tied:
            self.scores.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, positions) as int64 -> (n, positions, vocabulary); ``ValueError`` for more than ``context``."""
        positions = tokens.shape[1]
        if positions > self.context:
            raise ValueError(f"{positions} tokens are more than the model's context of {self.context}")
        states = self.tokens(tokens) + self.positions(torch.arange(positions, device=tokens.device))
        out: Tensor = self.scores(self.norm(self.blocks(states)))
        return out
