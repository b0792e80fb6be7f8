"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import MLP, SwiGLU, initialise

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Weighted(nn.Module):
    """Levels side by side, in each way of adding their answers.

    Weights with clocks of their own, side by side.
    From chain_independent.nl:4.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # chain_independent.nl:7  every 1 step
        self.fast = MLP(dim, hidden, residual=True, norm=True)
        # chain_independent.nl:8  every 2 steps
        self.middle = SwiGLU(dim, hidden)
        # chain_independent.nl:9  every 4 steps
        self.slow = nn.Linear(dim, dim, bias=False)
        self.level_gain = nn.Parameter(torch.full((3,), 1 / 3))

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack((self.fast(x), self.middle(x), self.slow(x)), dim=-1)  # [B, T, d, levels]
        return answers @ self.level_gain


class Shares(nn.Module):
    """Weights with clocks of their own, side by side.

    From chain_independent.nl:13.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # chain_independent.nl:16  every 1 step
        self.fast = MLP(dim, dim)
        # chain_independent.nl:17  every 4 steps
        self.slow = MLP(dim, dim)
        self.level_gain = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack((self.fast(x), self.slow(x)), dim=-1)  # [B, T, d, levels]
        return answers @ self.level_gain.softmax(0)


class Gated(nn.Module):
    """Weights with clocks of their own, side by side.

    From chain_independent.nl:21.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # chain_independent.nl:24  every 1 step
        self.fast = MLP(dim, dim)
        # chain_independent.nl:25  every 4 steps, starts as a copy of fast, returns there every 8 steps
        self.slow = MLP(dim, dim)
        self.gate = nn.Linear(dim, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.stack((self.fast(x), self.slow(x)), dim=-1)  # [B, T, d, levels]
        shares = self.gate(x).softmax(-1)  # [B, T, levels]
        return (answers @ shares[..., None]).squeeze(-1)


class Mean(nn.Module):
    """Weights with clocks of their own, side by side.

    From chain_independent.nl:29.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # chain_independent.nl:32  every 1 step
        self.fast = MLP(dim, dim)
        # chain_independent.nl:33  every 4 steps
        self.slow = MLP(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return (self.fast(x) + self.slow(x)) / 2


class Sum(nn.Module):
    """Weights with clocks of their own, side by side.

    From chain_independent.nl:37.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # chain_independent.nl:40  every 1 step
        self.fast = MLP(dim, dim)
        # chain_independent.nl:41  every 4 steps
        self.slow = MLP(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fast(x) + self.slow(x)


class Block(nn.Module):
    """From chain_independent.nl:45."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weighted_norm = nn.RMSNorm(dim, eps=1e-6)
        self.weighted = Weighted(dim, hidden=2 * dim)
        self.shares_norm = nn.RMSNorm(dim, eps=1e-6)
        self.shares = Shares(dim)
        self.gated_norm = nn.RMSNorm(dim, eps=1e-6)
        self.gated = Gated(dim)
        self.mean_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mean = Mean(dim)
        self.sum_norm = nn.RMSNorm(dim, eps=1e-6)
        self.sum = Sum(dim)

    def forward(self, x: Tensor) -> Tensor:
        # chain_independent.nl:46  weighted: x = x + (x |> rmsnorm |> Weighted(dim))
        x = x + self.weighted(self.weighted_norm(x))
        # chain_independent.nl:47  shares: x = x + (x |> rmsnorm |> Shares(dim))
        x = x + self.shares(self.shares_norm(x))
        # chain_independent.nl:48  gated: x = x + (x |> rmsnorm |> Gated(dim))
        x = x + self.gated(self.gated_norm(x))
        # chain_independent.nl:49  mean: x = x + (x |> rmsnorm |> Mean(dim))
        x = x + self.mean(self.mean_norm(x))
        # chain_independent.nl:50  sum: x = x + (x |> rmsnorm |> Sum(dim))
        x = x + self.sum(self.sum_norm(x))
        return x


class Small(nn.Module):
    """From chain_independent.nl:53."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(Block(config.dim))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        # chain_independent.nl:54  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm...
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
