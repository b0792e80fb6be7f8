"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import CausalConv, hebbian, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """A gate made of learned numbers, and a skip that is weighed by them.

    Hebbian tiles (E1): masked scores in a tile, one matrix carried between tiles.
    From learned_values.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.step_linear = nn.Linear(dim, heads, bias=False)
        self.step_start = nn.Parameter(torch.full((heads,), -2.25217))  # begins at 0.1
        self.shared_linear = nn.Linear(dim, dim, bias=False)
        self.shared_conv = CausalConv(dim, 2)
        self.key_learned = nn.Parameter(torch.ones(dim))
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.retain_learned = nn.Parameter(torch.full((heads,), 0.5))
        self.out_learned = nn.Parameter(torch.ones(dim))
        self.out_learned_2 = nn.Parameter(torch.full((dim,), 0.0))
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # learned_values.nl:5  step = x |> linear(heads) |> softplus(start = 0.1)
        step = F.softplus(self.step_linear(x) + self.step_start)  # [B, T, d]
        # learned_values.nl:6  shared = x |> linear |> conv(2)
        shared, shared_conv = self.shared_conv(self.shared_linear(x), state.get("shared_conv"))
        # learned_values.nl:7  key = shared * learned(dim, start = 1) |> unit
        key = unit(split_heads(shared * self.key_learned, self.heads))  # [B, H, T, d]
        # learned_values.nl:8  value = shared
        value = split_heads(shared, self.heads)  # [B, H, T, d]
        # learned_values.nl:9  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # learned_values.nl:10  rate = step
        rate = step.transpose(1, 2)  # [B, H, T]
        # learned_values.nl:11  retain = exp(-exp(learned(heads, start = 0.5)) * step)
        retain = torch.exp(-1 * torch.exp(self.retain_learned) * step).transpose(1, 2)  # [B, H, T]
        # [B, H, T, d]
        read, core = hebbian(query, key, value, rate=rate, retain=retain, state=state.get("core"))
        # learned_values.nl:13  out = (read + shared * learned(dim, start = 1)) * sigmoid(learned(dim))...
        y = self.out_linear(
            (merge_heads(read) + shared * self.out_learned) * torch.sigmoid(self.out_learned_2)
        )
        return y, {"shared_conv": shared_conv, "core": core}


class Block(nn.Module):
    """From learned_values.nl:16."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # learned_values.nl:17  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From learned_values.nl:20."""

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
        # learned_values.nl:21  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |>...
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
