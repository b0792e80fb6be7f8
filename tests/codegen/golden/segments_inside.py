"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels import (
    CausalConv,
    attention,
    by_segments,
    delta,
    initialise,
    merge_heads,
    recall,
    rotary,
    split_heads,
    unit,
)

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 12


class Delta(nn.Module):
    """Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.

    From segments_inside.nl:3.
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
        # segments_inside.nl:4  key = x |> linear |> conv(3) |> unit
        key, key_conv = self.key_conv(self.key_linear(x), state.get("key_conv"))
        key = unit(split_heads(key, self.heads))  # [B, H, T, d]
        # segments_inside.nl:5  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # segments_inside.nl:6  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # segments_inside.nl:7  rate = x |> linear(heads) |> sigmoid
        rate = torch.sigmoid(self.rate_linear(x)).transpose(1, 2)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"key_conv": key_conv, "core": core}


class Cache(nn.Module):
    """Scaled dot-product attention (c.2), read and written apart.

    From segments_inside.nl:10.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)

    def write(self, x: Tensor, state: State | None = None) -> tuple[State, State]:
        """What is written for `x` `[B, T, d]`: keys, values and gates; and the new state of this side."""
        state = state or {}
        position = state.get("position", 0)
        # segments_inside.nl:11  key = x |> linear |> rope
        key = rotary(split_heads(self.key_linear(x), self.heads), position, 10_000)  # [B, H, T, d]
        # segments_inside.nl:12  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        pairs = {"key": key, "value": value}
        return pairs, {"position": torch.as_tensor(position + x.shape[1])}

    def store(self, pairs: State, core: State | None) -> State:
        """The memory after `pairs`; `core` is the one before them."""
        _, core = attention(pairs["key"], **pairs, window=6, state=core)
        return core

    def recall(self, x: Tensor, core: State | None, state: State | None = None) -> tuple[Tensor, State]:
        """What the memory answers to `x` `[B, T, d]` as it is in `core`; and the new state of this side."""
        state = state or {}
        position = state.get("position", 0)
        # segments_inside.nl:13  query = x |> linear |> rope
        query = rotary(split_heads(self.query_linear(x), self.heads), position, 10_000)  # [B, H, T, d]
        read = recall(query, core, map={"kind": "cache", "window": 6})  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"position": torch.as_tensor(position + x.shape[1])}


class Cut(nn.Module):
    """An instance from outside goes on, what is inside begins anew with every segment.

    From segments_inside.nl:18.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.segment_length = length
        self.on = Delta(dim, heads=2)
        self.pairs = Cache(dim, heads=2)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.ffn_norm = nn.RMSNorm(dim, eps=1e-6)
        self.anew = Delta(dim, heads=2)
        self.mixer = Delta(dim, heads=2)
        self.conv = CausalConv(dim, 2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # segments_inside.nl:21  gate = x |> linear |> sigmoid
        gate_ = torch.sigmoid(self.linear(x))
        # segments_inside.nl:22  ffn: h = x |> rmsnorm
        h = self.ffn_norm(x)
        # segments_inside.nl:23  cut: segments(length) { let anew = Delta(dim) mixer: y = x + (h |> on)...
        x, segments = by_segments(self.run_segment, (x, h, gate_), self.segment_length, state.get("segments"))
        return x, {"segments": segments}

    def run_segment(
        self, x: Tensor, h: Tensor, gate_: Tensor, state: State, carried: State
    ) -> tuple[Tensor, State, State]:
        """A segment, or a piece of one: `state` begins anew with each, `carried` goes on."""
        # segments_inside.nl:25  mixer: y = x + (h |> on) + (h |> Delta(dim))
        y, on = self.on(h, carried.get("on"))
        y_2 = x + y
        y, mixer_state = self.mixer(h, state.get("mixer"))
        y = y_2 + y
        # segments_inside.nl:26  z = y + anew(y) + (y |> conv(2))
        z, anew = self.anew(y, state.get("anew"))
        z_2 = y + z
        z, conv = self.conv(y, state.get("conv"))
        z = z_2 + z
        # segments_inside.nl:27  old = pairs.read(z)
        pairs_before = state.get("pairs_before", carried.get("pairs"))
        old, pairs_recall = self.pairs.recall(z, pairs_before, carried.get("pairs_recall"))
        # segments_inside.nl:28  pairs.write(z)
        pairs_pairs, pairs_write = self.pairs.write(z, carried.get("pairs_write"))
        pairs = self.pairs.store(pairs_pairs, carried.get("pairs"))
        # segments_inside.nl:29  x = z + old * gate
        x = z + old * gate_
        state = {"mixer": mixer_state, "anew": anew, "conv": conv, "pairs_before": pairs_before}
        carried = {"on": on, "pairs_recall": pairs_recall, "pairs_write": pairs_write, "pairs": pairs}
        return x, state, carried


class Small(nn.Module):
    """From segments_inside.nl:33."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.cut = Cut(config.dim, length=5)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # segments_inside.nl:34  tokens |> embed(vocab, dim) |> Cut(dim) |> rmsnorm |> unembed(vocab)
        x, cut_state = self.cut(self.embed(tokens), state.get("cut"))
        return self.unembed(self.norm(x)), {"cut": cut_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
