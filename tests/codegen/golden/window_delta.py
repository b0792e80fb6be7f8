"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import initialise, merge_heads, split_heads, unit, window_delta

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """The delta rule on the last pairs, which count as the model says.

    Delta tiles on windows (E7): one unit lower-triangular solve a tile, with a row for each pair of each
    token's window, or sums over the window where it is long.
    From window_delta.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.retain_linear = nn.Linear(dim, heads, bias=False)
        self.retain_start = nn.Parameter(torch.full((heads,), 2.19722))  # begins at 0.9
        self.window_weight_linear = nn.Linear(dim, heads, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # window_delta.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # window_delta.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # window_delta.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # window_delta.nl:8  rate = 0.3
        rate = torch.full_like(key[..., 0], 0.3)  # [B, H, T]
        # window_delta.nl:9  retain = x |> linear(heads) |> sigmoid(start = 0.9)
        retain = torch.sigmoid(self.retain_linear(x) + self.retain_start).transpose(1, 2)  # [B, H, T]
        window_weight = torch.sigmoid(self.window_weight_linear(x)).transpose(1, 2)  # [B, H, T]
        read, core = window_delta(
            query,
            key,
            value,
            rate=rate,
            retain=retain,
            weight=window_weight,
            window=3,
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Block(nn.Module):
    """From window_delta.nl:14."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # window_delta.nl:15  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From window_delta.nl:18."""

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
        state = state or {}
        # window_delta.nl:19  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> un...
        x = self.embed(tokens)
        blocks_state: list[Any] = []
        blocks_before = state.get("blocks") or [None] * len(self.blocks)
        for block, before in zip(self.blocks, blocks_before, strict=True):
            x, after = block(x, before)
            blocks_state.append(after)
        return F.linear(self.norm(x), self.embed.weight), {"blocks": blocks_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
