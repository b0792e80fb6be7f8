"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import constant_gate, heavy_ball, in_turn, initialise, merge_heads, several, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Three writes for each token, read before the first, with momentum; constant gates.

    Delta tiles with momentum (E9, E11): one unit lower-triangular solve a tile, for the matrix and its
    momentum together.
    From several_writes_before.nl:4.
    """

    retain_of_heads: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.head_writes = heads * 3
        self.heads = heads
        self.key_linear = nn.Linear(dim, 3 * dim, bias=False)
        self.value_linear = nn.Linear(dim, 3 * dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.register_buffer("retain_of_heads", 1 - 2 ** (-3 - torch.arange(float(heads))), persistent=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # several_writes_before.nl:6  key = x |> linear(3 * dim) |> unit
        key = unit(split_heads(self.key_linear(x), self.head_writes))
        key = in_turn(key, 3)  # [B, H, T, d]
        # several_writes_before.nl:7  value = x |> linear(3 * dim)
        value = in_turn(split_heads(self.value_linear(x), self.head_writes), 3)  # [B, H, T, d]
        # several_writes_before.nl:8  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # several_writes_before.nl:9  rate = 0.3
        rate = torch.full_like(key[..., 0], 0.3)  # [B, H, T]
        # several_writes_before.nl:10  retain = 1 - 2 ^ (-3 - head)
        retain = self.retain_of_heads[:, None].expand_as(query[..., 0])  # [B, H, T]
        # several_writes_before.nl:11  momentum = 0.5
        momentum = constant_gate(query[..., 0], 0.5)  # [B, H, T]
        read, core = several(
            heavy_ball,
            query,
            key,
            value,
            rate=rate,
            retain=retain,
            momentum=momentum,
            read="before",
            state=state.get("core"),
            writes=3,
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Block(nn.Module):
    """From several_writes_before.nl:15."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # several_writes_before.nl:16  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From several_writes_before.nl:19."""

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
        # several_writes_before.nl:20  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsn...
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
