"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    CausalConv,
    constant_gate,
    frozen,
    hebbian,
    initialise,
    merge_heads,
    recall,
    split_heads,
    unit,
)

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 12


class Sum(nn.Module):
    """Hebbian tiles (E1), read and written apart.

    From apart_sequence.nl:3.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.shared_linear = nn.Linear(dim, dim, bias=False)
        self.shared_conv = CausalConv(dim, 3)
        self.value_linear = nn.Linear(dim, 2 * dim, bias=False)
        self.out_linear = nn.Linear(2 * dim, dim, bias=False)

    def write(self, x: Tensor, state: State | None = None) -> tuple[State, State]:
        """What is written for `x` `[B, T, d]`: keys, values and gates; and the new state of this side."""
        state = state or {}
        # apart_sequence.nl:4  shared = x |> linear |> conv(3)
        shared, shared_conv = self.shared_conv(self.shared_linear(x), state.get("shared_conv"))
        # apart_sequence.nl:5  key = (shared |> elu) + 1
        key = split_heads(F.elu(shared) + 1, self.heads)  # [B, H, T, d]
        # apart_sequence.nl:6  value = x |> linear(2 * dim)
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # apart_sequence.nl:8  retain = 0.9
        retain = constant_gate(key[..., 0], 0.9)  # [B, H, T]
        pairs = {"key": key, "value": value, "retain": retain}
        return pairs, {"shared_conv": shared_conv}

    def read(
        self, x: Tensor, pairs: State, core: State | None, state: State | None = None
    ) -> tuple[Tensor, State, State]:
        """What the memory answers to `x` `[B, T, d]` while `pairs` of the same tokens are written; the
        memory after them; and the new state of this side.
        """
        state = state or {}
        # apart_sequence.nl:4  shared = x |> linear |> conv(3)
        shared, shared_conv = self.shared_conv(self.shared_linear(x), state.get("shared_conv"))
        # apart_sequence.nl:7  query = (shared |> elu) + 1
        query = split_heads(F.elu(shared) + 1, self.heads)  # [B, H, T, d]
        read, core = hebbian(query, **pairs, normalise=True, state=core)  # [B, H, T, d]
        # apart_sequence.nl:11  out = read |> linear(dim)
        y = self.out_linear(merge_heads(read))
        return y, core, {"shared_conv": shared_conv}


class Late(nn.Module):
    """Factored frozen gradient (E6), read and written apart.

    From apart_sequence.nl:14.
    """

    retain_of_heads: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = nn.Parameter(torch.zeros(heads, dim // heads, dim // heads))
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.register_buffer("retain_of_heads", 1 - 2 ** (-3 - torch.arange(float(heads))), persistent=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)

    def write(self, x: Tensor, state: State | None = None) -> tuple[State, State]:
        """What is written for `x` `[B, T, d]`: keys, values and gates; and the new state of this side."""
        state = state or {}
        # apart_sequence.nl:15  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # apart_sequence.nl:16  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # apart_sequence.nl:18  retain = 1 - 2 ^ (-3 - head)
        retain = self.retain_of_heads[:, None].expand_as(key[..., 0])  # [B, H, T]
        pairs = {"key": key, "value": value, "retain": retain}
        return pairs, {}

    def recall(self, x: Tensor, core: State | None, state: State | None = None) -> tuple[Tensor, State]:
        """What the memory answers to `x` `[B, T, d]` as it is in `core`; and the new state of this side."""
        state = state or {}
        # apart_sequence.nl:17  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        read = recall(query, core, self.start, boundary=True)  # [B, H, T, d]
        y = merge_heads(read)
        return y, {}

    def read(
        self, x: Tensor, pairs: State, core: State | None, state: State | None = None
    ) -> tuple[Tensor, State, State]:
        """What the memory answers to `x` `[B, T, d]` while `pairs` of the same tokens are written; the
        memory after them; and the new state of this side.
        """
        state = state or {}
        # apart_sequence.nl:17  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        read, core = frozen(
            query,
            **pairs,
            start=self.start,
            map="matrix",
            period=4,
            objective="l2",
            read="boundary",
            state=core,
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, core, {}


class Apart(nn.Module):
    """One pass is the sequence: a read before the write sees the start.

    From apart_sequence.nl:24.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.a = Sum(dim, heads=2)
        self.b = Late(dim, heads=2)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # apart_sequence.nl:27  begun = x |> b.read
        begun, b_recall = self.b.recall(x, None, state.get("b_recall"))
        # apart_sequence.nl:28  x |> linear |> a.write
        a_pairs, a_write = self.a.write(self.linear(x), state.get("a_write"))
        # apart_sequence.nl:29  b.write(x)
        b_pairs, b_write = self.b.write(x, state.get("b_write"))
        # apart_sequence.nl:30  h = x + a.read(x)
        h, a, a_read = self.a.read(x, a_pairs, state.get("a"), state.get("a_read"))
        h = x + h
        # apart_sequence.nl:31  x = h + (h |> rmsnorm |> a.read) + b.read(x) * begun
        y, _, a_read_2 = self.a.read(self.norm(h), a_pairs, state.get("a"), state.get("a_read_2"))
        y_2 = h + y
        y, b, b_read = self.b.read(x, b_pairs, state.get("b"), state.get("b_read"))
        x = y_2 + y * begun
        state = {
            "b_recall": b_recall,
            "a_write": a_write,
            "b_write": b_write,
            "a": a,
            "a_read": a_read,
            "a_read_2": a_read_2,
            "b": b,
            "b_read": b_read,
        }
        return x, state


class Small(nn.Module):
    """From apart_sequence.nl:34."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.apart = Apart(config.dim)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # apart_sequence.nl:35  tokens |> embed(vocab, dim) |> Apart(dim) |> rmsnorm |> unembed(vocab)
        x, apart_state = self.apart(self.embed(tokens), state.get("apart"))
        return self.unembed(self.norm(x)), {"apart": apart_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
