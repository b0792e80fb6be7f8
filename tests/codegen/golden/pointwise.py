"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import initialise

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 11


class Shapes(nn.Module):
    """Every stage that works number by number.

    From pointwise.nl:4.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sharp_gain = nn.Parameter(torch.ones(dim))
        self.opened_start = nn.Parameter(torch.full((dim,), 2.19722))  # begins at 0.9
        self.opened_start_2 = nn.Parameter(torch.full((dim,), -2.25217))  # begins at 0.1
        self.grown_dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        # pointwise.nl:5  smooth: x = x + (x |> silu |> gelu |> tanh |> elu)
        y = torch.tanh(F.gelu(F.silu(x)))
        x = x + F.elu(y)
        # pointwise.nl:6  sharp: x = x + (x |> relu |> scale(0.5) |> learned)
        x = x + F.relu(x) * 0.5 * self.sharp_gain
        # pointwise.nl:7  closed: x = x + (x |> sigmoid) * (x |> softplus)
        x = x + torch.sigmoid(x) * F.softplus(x)
        # pointwise.nl:8  opened: x = x + (x |> sigmoid(start = 0.9)) * (x |> softplus(start = 0.1))
        x = x + torch.sigmoid(x + self.opened_start) * F.softplus(x + self.opened_start_2)
        # pointwise.nl:9  grown: x = x + (x |> scale(0.1) |> exp |> dropout(0.1))
        x = x + self.grown_dropout(torch.exp(x * 0.1))
        return x


class Small(nn.Module):
    """From pointwise.nl:12."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.shapes = Shapes(config.dim)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        # pointwise.nl:13  tokens |> embed(vocab, dim) |> Shapes(dim) |> unembed(tied)
        return F.linear(self.shapes(self.embed(tokens)), self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
