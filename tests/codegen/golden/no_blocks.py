"""The model `Small`.

A model that is one pipeline, with a head of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kernels import MLP, initialise

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 11


class Small(nn.Module):
    """A model that is one pipeline, with a head of its own.

    From no_blocks.nl:4.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.mlp = MLP(config.dim, 2 * config.dim, residual=True, norm=True)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        # no_blocks.nl:5  tokens |> embed(vocab, dim) |> mlp(2 * dim, norm, residual) |> layernorm |> u...
        x = self.norm(self.mlp(self.embed(tokens)))
        return self.unembed(x), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
