"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import attention, initialise, merge_heads, rotary, split_heads

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Two heads of keys and values serve four of queries.

    Scaled dot-product attention (c.2): one masked softmax over the kept tokens.
    From grouped_cache.nl:4.
    """

    def __init__(self, dim: int, heads: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.heads = heads
        self.key_linear = nn.Linear(dim, groups * dim // heads, bias=False)
        self.value_linear = nn.Linear(dim, groups * dim // heads, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        position = state.get("position", 0)
        # grouped_cache.nl:5  key = x |> linear(groups * dim / heads) |> grouped(groups) |> rope
        key = rotary(split_heads(self.key_linear(x), self.groups), position, 10_000)  # [B, H, T, d]
        # grouped_cache.nl:6  value = x |> linear(groups * dim / heads) |> grouped(groups)
        value = split_heads(self.value_linear(x), self.groups)  # [B, H, T, d]
        # grouped_cache.nl:7  query = x |> linear |> rope |> scale(0.5)
        query = rotary(split_heads(self.query_linear(x), self.heads), position, 10_000)
        query = query * 0.5  # [B, H, T, d]
        read, core = attention(query, key, value, state=state.get("core"))
        y = merge_heads(read)
        return y, {"position": torch.as_tensor(position + x.shape[1]), "core": core}


class Block(nn.Module):
    """From grouped_cache.nl:11."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=4, groups=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # grouped_cache.nl:12  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From grouped_cache.nl:15."""

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
        # grouped_cache.nl:16  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> u...
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
