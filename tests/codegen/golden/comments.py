"""The model `Small`.

Ends in a "quote\"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from kernels import MLP, initialise

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Block(nn.Module):
    """What a docstring has to hold: a "quoted" word, a \\backslash, `code`.
    And \"\"\" and a "quoted end".

    From comments.nl:5.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        # comments.nl:6  x = x + (x |> rmsnorm |> mlp(dim))
        x = x + self.mlp(self.norm(x))
        return x


class Small(nn.Module):
    """Ends in a "quote"

    From comments.nl:10.
    """

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
        # comments.nl:11  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unembe...
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
