"""The model `Tensor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import MLP, CausalConv, delta, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    torch_: int = 2
    vocab: int = 11


class delta_(nn.Module):
    """Parts that are called as what the generated file imports or defines.

    Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.
    From clashes.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.unit_linear = nn.Linear(dim, dim, bias=False)
        self.input_linear = nn.Linear(dim, dim, bias=False)
        self.y_conv = CausalConv(dim, 2)
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # clashes.nl:5  unit = x |> linear |> silu
        unit_ = F.silu(self.unit_linear(x))  # [B, T, d]
        # clashes.nl:6  input = x |> linear
        input_ = self.input_linear(x)  # [B, T, d]
        # clashes.nl:7  y = x |> conv(2)
        y_, y_conv = self.y_conv(x, state.get("y_conv"))
        # clashes.nl:8  read_ = y |> silu
        read_ = F.silu(y_)  # [B, T, d]
        # clashes.nl:9  key = unit |> unit
        key = unit(split_heads(unit_, self.heads))  # [B, H, T, d]
        # clashes.nl:10  value = input
        value = split_heads(input_, self.heads)  # [B, H, T, d]
        # clashes.nl:11  query = read_ |> unit
        query = unit(split_heads(read_, self.heads))  # [B, H, T, d]
        # clashes.nl:12  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        # clashes.nl:13  out = read + y |> linear
        y = self.out_linear(merge_heads(read) + y_)
        return y, {"y_conv": y_conv, "core": core}


class MLP_(nn.Module):
    """From clashes.nl:16."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, build_: int) -> None:
        super().__init__()
        self.train_norm = nn.RMSNorm(dim, eps=1e-6)
        self.train_ = delta_(dim, heads=2)
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, build_)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # clashes.nl:17  train: x = x + (x |> rmsnorm |> delta(dim))
        y, train_state = self.train_(self.train_norm(x), state.get("train_"))
        x = x + y
        # clashes.nl:18  block = x |> rmsnorm |> mlp(build)
        block_ = self.mlp(self.norm(x))
        # clashes.nl:19  x = x + block
        x = x + block_
        return x, {"train_": train_state}


class Tensor_(nn.Module):
    """From clashes.nl:22."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList()
        for _ in range(config.torch_):
            self.blocks.append(MLP_(config.dim, build_=2 * config.dim))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # clashes.nl:23  tokens |> embed(vocab, dim) |> repeat(torch, MLP(dim, 2 * dim)) |> rmsnorm |>...
        x = self.embed(tokens)
        blocks_state: list[Any] = []
        blocks_before = state.get("blocks") or [None] * len(self.blocks)
        for block, before in zip(self.blocks, blocks_before, strict=True):
            x, after = block(x, before)
            blocks_state.append(after)
        return F.linear(self.norm(x), self.embed.weight), {"blocks": blocks_state}


def build(config: Config | None = None) -> Tensor_:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Tensor_(config or Config())
