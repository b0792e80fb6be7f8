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
    vocab: int = 11


class Nested(nn.Module):
    """Levels of which each begins anew with the next slower one.

    Weights with clocks of their own, one after the other; each begins anew with the next slower.
    From chain_nested.nl:4.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # chain_nested.nl:7  every 1 step, starts as learned in middle, returns there with middle
        self.fast = MLP(dim, hidden, residual=True, norm=True)
        # chain_nested.nl:8  every 2 steps, starts as learned in slow, returns there with slow
        self.middle = SwiGLU(dim, hidden)
        # chain_nested.nl:9  every 4 steps
        self.slow = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fast(x)
        x = self.middle(x)
        x = self.slow(x)
        return x


class Small(nn.Module):
    """From chain_nested.nl:13."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.nested = Nested(config.dim, hidden=2 * config.dim)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        # chain_nested.nl:14  tokens |> embed(vocab, dim) |> Nested(dim) |> rmsnorm |> unembed(tied)
        x = self.norm(self.nested(self.embed(tokens)))
        return F.linear(x, self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
