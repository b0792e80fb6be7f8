"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


class Continuum(nn.Module):
    """Weights with clocks of their own, in each kind of map.

    Weights with clocks of their own, one after the other.
    From chain.nl:4.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # chain.nl:7  every 1 step
        self.fast = MLP(dim, hidden, residual=True, norm=True)
        # chain.nl:8  every 2 steps
        self.middle = SwiGLU(dim, hidden)
        # chain.nl:9  every 4 steps
        self.slow = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fast(x)
        x = self.middle(x)
        x = self.slow(x)
        return x


class Once(nn.Module):
    """Weights with clocks of their own, one after the other.

    From chain.nl:13.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # chain.nl:13  every 2 steps
        self.Once = MLP(dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Once(x)
        return x


class Block(nn.Module):
    """From chain.nl:19."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.store_norm = nn.RMSNorm(dim, eps=1e-6)
        self.store = Continuum(dim, hidden=2 * dim)
        self.once_norm = nn.RMSNorm(dim, eps=1e-6)
        self.once = Once(dim)

    def forward(self, x: Tensor) -> Tensor:
        # chain.nl:20  store: x = x + (x |> rmsnorm |> Continuum(dim))
        x = x + self.store(self.store_norm(x))
        # chain.nl:21  once: x = x + (x |> rmsnorm |> Once(dim))
        x = x + self.once(self.once_norm(x))
        return x


class Small(nn.Module):
    """From chain.nl:24."""

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
        # chain.nl:25  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unembed(t...
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
