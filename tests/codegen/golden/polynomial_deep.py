"""The model `Small`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import Polynomial, fast_starts, frozen, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 11


class Mixer(nn.Module):
    """A deep memory that reads products of up to three features, and features of a token made so.

    Factored frozen gradient (E6): one coefficient matrix a period; no weights of single tokens.
    From polynomial_deep.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.key_polynomial = Polynomial(3)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.query_polynomial = Polynomial(3)
        self.start = fast_starts(heads, (5, math.comb(dim // heads + 3, 3)), (dim // heads, 5))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # polynomial_deep.nl:5  key = x |> linear |> unit |> polynomial(3)
        key = unit(split_heads(self.key_linear(x), self.heads))
        key = self.key_polynomial(key)  # [B, H, T, d]
        # polynomial_deep.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # polynomial_deep.nl:7  query = x |> linear |> unit |> polynomial(3)
        query = unit(split_heads(self.query_linear(x), self.heads))
        query = self.query_polynomial(query)  # [B, H, T, d]
        # polynomial_deep.nl:8  rate = 0.05
        rate = torch.full_like(key[..., 0], 0.05)  # [B, H, T]
        read, core = frozen(
            query,
            key,
            value,
            rate=rate,
            start=tuple(self.start),
            map="mlp",
            period=4,
            objective="l2",
            residual=False,
            activation="gelu",
            read="after",
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Block(nn.Module):
    """From polynomial_deep.nl:13."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)
        self.bent_linear = nn.Linear(dim, 3, bias=False)
        self.bent_polynomial = Polynomial(2)
        self.bent_linear_2 = nn.Linear(10, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # polynomial_deep.nl:14  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        # polynomial_deep.nl:15  bent: x = x + (x |> linear(3) |> tanh |> polynomial(2) |> linear(dim))
        y = self.bent_polynomial(torch.tanh(self.bent_linear(x)))
        x = x + self.bent_linear_2(y)
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From polynomial_deep.nl:18."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.block = Block(config.dim)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # polynomial_deep.nl:19  tokens |> embed(vocab, dim) |> Block(dim) |> rmsnorm |> unembed(tied)
        x, block_state = self.block(self.embed(tokens), state.get("block"))
        return F.linear(self.norm(x), self.embed.weight), {"block": block_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
