"""A decaying sum of embeddings, read by two linear maps: 1,177 parameters and a state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Sizes."""

    vocab: int = 128
    dim: int = 8


class Toy(nn.Module):
    """From tokens [B, T] to logits [B, T, vocab]; the state holds the running sum [B, dim]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.dim < 1:
            raise ValueError("`dim` has to be 1 or more")
        self.embed = nn.Embedding(config.vocab, config.dim)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.fast = nn.Linear(config.dim, config.dim)
        self.slow = nn.Linear(config.dim, config.dim)
        self.norm_scale = nn.Parameter(torch.ones(config.dim))
        self.retain = nn.Parameter(torch.tensor(0.0))

    def forward(
        self, tokens: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of the next tokens, and the sum to go on from."""
        x = self.embed(tokens)
        total = x.new_zeros(x.shape[0], x.shape[-1]) if state is None else state["sum"]
        sums: list[Tensor] = []
        for t in range(x.shape[1]):
            total = torch.sigmoid(self.retain) * total + x[:, t]
            sums.append(total)
        h = torch.stack(sums, 1) * self.norm_scale
        h = h + torch.tanh(self.fast(h)) + torch.tanh(self.slow(h))
        return h @ self.embed.weight.T, {"sum": total}


def build(config: Config = Config()) -> nn.Module:
    """The model with fresh weights."""
    return Toy(config)
