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
    vocab: int = 11


class Mixer(nn.Module):
    """Blocks in blocks, lines without labels, and two repeats.

    Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.
    From nested_blocks.nl:4.
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
        # nested_blocks.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # nested_blocks.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # nested_blocks.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # nested_blocks.nl:8  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Inner(nn.Module):
    """From nested_blocks.nl:11."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)
        self.norm_2 = nn.RMSNorm(dim, eps=1e-6)
        self.mixer_2 = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # nested_blocks.nl:12  y = x |> rmsnorm |> Mixer(dim)
        y, mixer_state = self.mixer(self.norm(x), state.get("mixer"))
        # nested_blocks.nl:13  z = x |> rmsnorm |> Mixer(dim) |> silu
        z, mixer_2_state = self.mixer_2(self.norm_2(x), state.get("mixer_2"))
        z = F.silu(z)
        # nested_blocks.nl:14  x = x + y * z
        x = x + y * z
        return x, {"mixer": mixer_state, "mixer_2": mixer_2_state}


class Outer(nn.Module):
    """From nested_blocks.nl:17."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            self.blocks.append(Inner(dim))
        self.second = Inner(dim)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # nested_blocks.nl:18  first: x = x |> repeat(depth, Inner(dim))
        blocks_state: list[Any] = []
        blocks_before = state.get("blocks") or [None] * len(self.blocks)
        for block, before in zip(self.blocks, blocks_before, strict=True):
            x, after = block(x, before)
            blocks_state.append(after)
        # nested_blocks.nl:19  second: x = x |> Inner(dim)
        x, second_state = self.second(x, state.get("second"))
        return x, {"blocks": blocks_state, "second": second_state}


class Small(nn.Module):
    """From nested_blocks.nl:22."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            self.blocks.append(Outer(config.dim, depth=1))
        self.blocks_2 = nn.ModuleList()
        for _ in range(1):
            self.blocks_2.append(Inner(config.dim))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # nested_blocks.nl:23  x = tokens |> embed(vocab, dim)
        x = self.embed(tokens)
        # nested_blocks.nl:24  y = x |> repeat(2, Outer(dim, 1)) |> repeat(1, Inner(dim))
        y = x
        blocks_state: list[Any] = []
        blocks_before = state.get("blocks") or [None] * len(self.blocks)
        for block, before in zip(self.blocks, blocks_before, strict=True):
            y, after = block(y, before)
            blocks_state.append(after)
        blocks_2_state: list[Any] = []
        blocks_2_before = state.get("blocks_2") or [None] * len(self.blocks_2)
        for block, before in zip(self.blocks_2, blocks_2_before, strict=True):
            y, after = block(y, before)
            blocks_2_state.append(after)
        # nested_blocks.nl:25  x + y |> rmsnorm |> unembed(tied)
        state = {"blocks": blocks_state, "blocks_2": blocks_2_state}
        return F.linear(self.norm(x + y), self.embed.weight), state


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
