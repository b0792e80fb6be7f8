"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels import MLP, CausalConv, delta, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 12


class Delta(nn.Module):
    """Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.

    From let_shared.nl:3.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.key_conv = CausalConv(dim, 3)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # let_shared.nl:4  key = x |> linear |> conv(3) |> unit
        key, key_conv = self.key_conv(self.key_linear(x), state.get("key_conv"))
        key = unit(split_heads(key, self.heads))  # [B, H, T, d]
        # let_shared.nl:5  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # let_shared.nl:6  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # let_shared.nl:7  rate = x |> linear(heads) |> sigmoid
        rate = torch.sigmoid(self.rate_linear(x)).transpose(1, 2)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"key_conv": key_conv, "core": core}


class Inner(nn.Module):
    """From let_shared.nl:16."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Delta(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # let_shared.nl:17  mixer: x = x + (x |> rmsnorm |> Delta(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Store(nn.Module):
    """Weights with clocks of their own, one after the other.

    From let_shared.nl:10.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # let_shared.nl:10  every 4 steps
        self.Store = MLP(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Store(x)
        return x


class Tied(nn.Module):
    """The same weights at two places, with a state at each.

    From let_shared.nl:21.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.m = Delta(dim, heads=2)
        self.inner = Inner(dim)
        self.store = Store(dim)
        self.first_norm = nn.RMSNorm(dim, eps=1e-6)
        self.last_norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # let_shared.nl:25  first: x = x + m(x |> rmsnorm)
        y, m = self.m(self.first_norm(x), state.get("m"))
        x = x + y
        # let_shared.nl:26  x = x |> inner |> store
        x, inner = self.inner(x, state.get("inner"))
        x = self.store(x)
        # let_shared.nl:27  last: x = x + (x |> rmsnorm |> m)
        y, m_2 = self.m(self.last_norm(x), state.get("m_2"))
        x = x + y
        # let_shared.nl:28  x = x |> store |> inner
        x, inner_2 = self.inner(self.store(x), state.get("inner_2"))
        return x, {"m": m, "inner": inner, "m_2": m_2, "inner_2": inner_2}


class Small(nn.Module):
    """From let_shared.nl:31."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.tied = Tied(config.dim)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # let_shared.nl:32  tokens |> embed(vocab, dim) |> Tied(dim) |> rmsnorm |> unembed(vocab)
        x, tied_state = self.tied(self.embed(tokens), state.get("tied"))
        return self.unembed(self.norm(x)), {"tied": tied_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
