"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from kernels import SwiGLU, initialise

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 3
    vocab: int = 11


class Thinks(nn.Module):
    """Repeated blocks that remember nothing.

    From stateless_blocks.nl:4.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.swiglu = SwiGLU(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        # stateless_blocks.nl:5  x = x + (x |> rmsnorm |> swiglu(2 * dim))
        x = x + self.swiglu(self.norm(x))
        return x


class Small(nn.Module):
    """From stateless_blocks.nl:8."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(Thinks(config.dim))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        # stateless_blocks.nl:9  tokens |> embed(vocab, dim) |> repeat(depth, Thinks(dim)) |> rmsnorm |...
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
