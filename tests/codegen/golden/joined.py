"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import CausalConv, delta, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Sums and products whose both sides carry state.

    Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.
    From joined.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_conv = CausalConv(dim, 3)
        self.key_conv_2 = CausalConv(dim, 2)
        self.value_conv = CausalConv(dim, 2)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.value_conv_2 = CausalConv(dim, 3)
        self.value_linear_2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # joined.nl:5  key = (x |> conv(3)) * (x |> conv(2)) |> unit
        key_2, key_conv = self.key_conv(x, state.get("key_conv"))
        key, key_conv_2 = self.key_conv_2(x, state.get("key_conv_2"))
        key = unit(split_heads(key_2 * key, self.heads))  # [B, H, T, d]
        # joined.nl:6  value = (x |> conv(2) |> linear) + (x |> conv(3) |> linear)
        value, value_conv = self.value_conv(x, state.get("value_conv"))
        value_2 = self.value_linear(value)
        value, value_conv_2 = self.value_conv_2(x, state.get("value_conv_2"))
        value = split_heads(value_2 + self.value_linear_2(value), self.heads)  # [B, H, T, d]
        # joined.nl:7  query = key
        query = key  # [B, H, T, d]
        # joined.nl:8  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        state = {
            "key_conv": key_conv,
            "key_conv_2": key_conv_2,
            "value_conv": value_conv,
            "value_conv_2": value_conv_2,
            "core": core,
        }
        return y, state


class Block(nn.Module):
    """From joined.nl:11."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.both_norm = nn.RMSNorm(dim, eps=1e-6)
        self.both = Mixer(dim, heads=2)
        self.both_norm_2 = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)
        self.both_conv = CausalConv(dim, 2)
        self.mixer_2 = Mixer(dim, heads=2)
        self.conv = CausalConv(dim, 2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # joined.nl:12  both: x = x + (x |> rmsnorm |> Mixer(dim)) * (x |> rmsnorm |> Mixer(dim)) + (x...
        h_2, both_state = self.both(self.both_norm(x), state.get("both"))
        h, mixer_state = self.mixer(self.both_norm_2(x), state.get("mixer"))
        h_3 = x + h_2 * h
        h, both_conv = self.both_conv(x, state.get("both_conv"))
        x = h_3 + h
        # joined.nl:13  y = (x |> Mixer(dim) |> silu) - (x |> conv(2) |> tanh)
        y, mixer_2_state = self.mixer_2(x, state.get("mixer_2"))
        y_2 = F.silu(y)
        y, conv = self.conv(x, state.get("conv"))
        y = y_2 - torch.tanh(y)
        # joined.nl:14  x = x + y * 0.5
        x = x + y * 0.5
        state = {
            "both": both_state,
            "mixer": mixer_state,
            "both_conv": both_conv,
            "mixer_2": mixer_2_state,
            "conv": conv,
        }
        return x, state


class Small(nn.Module):
    """From joined.nl:17."""

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
        # joined.nl:18  x = tokens |> embed(vocab, dim)
        x = self.embed(tokens)
        # joined.nl:19  x + (x |> repeat(depth, Block(dim))) * 0.5 |> rmsnorm |> unembed(tied)
        y = x
        blocks_state: list[Any] = []
        blocks_before = state.get("blocks") or [None] * len(self.blocks)
        for block, before in zip(self.blocks, blocks_before, strict=True):
            y, after = block(y, before)
            blocks_state.append(after)
        return F.linear(self.norm(x + y * 0.5), self.embed.weight), {"blocks": blocks_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
