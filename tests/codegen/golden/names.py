"""The model `Module`."""

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
    train: int = 1
    vocab: int = 11


class State_(nn.Module):
    """Names that Python, torch or the generated file have uses for.

    Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.
    From names.nl:4.
    """

    def __init__(self, dim: int, heads: int, forward: int, lambda_: float) -> None:
        super().__init__()
        self.heads = heads
        self.rate_constant = lambda_
        self.class_linear = nn.Linear(dim, dim, bias=False)
        self.core_linear = nn.Linear(dim, dim, bias=False)
        self.key_conv = CausalConv(dim, forward)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # names.nl:5  class = x |> linear |> silu
        class_ = F.silu(self.class_linear(x))  # [B, T, d]
        # names.nl:6  core = x |> linear
        core_ = self.core_linear(x)  # [B, T, d]
        # names.nl:7  key = class |> conv(forward) |> unit
        key, key_conv = self.key_conv(class_, state.get("key_conv"))
        key = unit(split_heads(key, self.heads))  # [B, H, T, d]
        # names.nl:8  value = core
        value = split_heads(core_, self.heads)  # [B, H, T, d]
        # names.nl:9  query = class |> unit
        query = unit(split_heads(class_, self.heads))  # [B, H, T, d]
        # names.nl:10  rate = lambda
        rate = torch.full_like(key[..., 0], self.rate_constant)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"key_conv": key_conv, "core": core}


class Config_(nn.Module):
    """From names.nl:13."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.train_norm = nn.RMSNorm(dim, eps=1e-6)
        self.train_ = State_(dim, heads=2, forward=2, lambda_=0.5)
        self.state_norm = nn.RMSNorm(dim, eps=1e-6)
        self.state_mlp = MLP(dim, dim)
        self.def_norm = nn.RMSNorm(dim, eps=1e-6)
        self.def_ = State_(dim, heads=2, forward=2, lambda_=0.5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # names.nl:14  train: x = x + (x |> rmsnorm |> State(dim))
        y, train_state = self.train_(self.train_norm(x), state.get("train_"))
        x = x + y
        # names.nl:15  state: x = x + (x |> rmsnorm |> mlp(dim))
        x = x + self.state_mlp(self.state_norm(x))
        # names.nl:16  def: x = x + (x |> rmsnorm |> State(dim))
        y, def_state = self.def_(self.def_norm(x), state.get("def_"))
        x = x + y
        return x, {"train_": train_state, "def_": def_state}


class Module(nn.Module):
    """From names.nl:19."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList()
        for _ in range(config.train):
            self.blocks.append(Config_(config.dim))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # names.nl:20  tokens |> embed(vocab, dim) |> repeat(train, Config(dim)) |> rmsnorm |> unembed(...
        x = self.embed(tokens)
        blocks_state: list[Any] = []
        blocks_before = state.get("blocks") or [None] * len(self.blocks)
        for block, before in zip(self.blocks, blocks_before, strict=True):
            x, after = block(x, before)
            blocks_state.append(after)
        return F.linear(self.norm(x), self.embed.weight), {"blocks": blocks_state}


def build(config: Config | None = None) -> Module:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Module(config or Config())
