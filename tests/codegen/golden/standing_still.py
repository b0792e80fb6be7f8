"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import delta, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 16


class Still(nn.Module):
    """Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.

    From standing_still.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.retain_linear = nn.Linear(dim, heads, bias=False)
        self.retain_start = nn.Parameter(torch.full((heads,), 2.19722))  # begins at 0.9
        self.start = nn.Parameter(torch.zeros(heads, dim // heads, dim // heads))
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # standing_still.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # standing_still.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # standing_still.nl:7  query = key
        query = key  # [B, H, T, d]
        # standing_still.nl:8  rate = x |> linear(heads) |> sigmoid
        rate = torch.sigmoid(self.rate_linear(x)).transpose(1, 2)  # [B, H, T]
        # standing_still.nl:9  retain = x |> linear(heads) |> sigmoid(start = 0.9)
        retain = torch.sigmoid(self.retain_linear(x) + self.retain_start).transpose(1, 2)  # [B, H, T]
        # Not plastic: at test time nothing is written, and nothing is forgotten.
        written_key = key if self.training else torch.zeros_like(key)
        written_value = value if self.training else torch.zeros_like(value)
        kept = retain if self.training else torch.ones_like(retain)
        read, core = delta(
            query,
            written_key,
            written_value,
            rate=rate,
            retain=kept,
            start=self.start,
            state=state.get("core"),
        )  # [B, H, T, d]
        # standing_still.nl:13  out = (read + key + value) |> linear
        y = self.out_linear(merge_heads(read + key + value))
        return y, {"core": core}


class Small(nn.Module):
    """From standing_still.nl:16."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.still = Still(config.dim, heads=2)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # standing_still.nl:17  tokens |> embed(vocab, dim) |> Still(dim) |> rmsnorm |> unembed(tied)
        x, still_state = self.still(self.embed(tokens), state.get("still"))
        return F.linear(self.norm(x), self.embed.weight), {"still": still_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
