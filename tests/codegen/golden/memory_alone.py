"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels import delta, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 11


class Mixer(nn.Module):
    """A memory that stands in the model itself.

    Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.
    From memory_alone.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # memory_alone.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # memory_alone.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # memory_alone.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # memory_alone.nl:8  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Small(nn.Module):
    """From memory_alone.nl:11."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.mixer = Mixer(config.dim, heads=2)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # memory_alone.nl:12  tokens |> embed(vocab, dim) |> Mixer(dim) |> unembed(vocab)
        x, mixer_state = self.mixer(self.embed(tokens), state.get("mixer"))
        return self.unembed(x), {"mixer": mixer_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
