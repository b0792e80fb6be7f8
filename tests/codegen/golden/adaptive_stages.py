"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    answer,
    constant_gate,
    fast_starts,
    frozen_fold,
    initialise,
    merge_heads,
    one_memory,
    periods,
    split_heads,
    stacked_starts,
    unit,
)

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Projections that learn the value by what they answered themselves (Nested Learning, Eq. 79-82).

    Read at the start of each period of 4, then folded over its writes (E6).
    From adaptive_stages.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.key_memory = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.query_memory = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.rate_memory = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -1.38629))  # begins at 0.2

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_stages.nl:6  value = x |> linear |> unit
        value = unit(split_heads(self.value_linear(x), self.heads))  # [B, H, T, d]
        if "running" in state:
            running, anchor, phase = state["running"], state["anchor"], int(state["phase"])
            running_of_key_and_rate, anchor_of_key_and_rate = (
                state["running_of_key_and_rate"],
                state["anchor_of_key_and_rate"],
            )
            running_of_query, anchor_of_query = state["running_of_query"], state["anchor_of_query"]
        else:
            running = stacked_starts((self.start,), x.shape[0])  # each layer [M, B, H, out, in]
            anchor, phase = running, 0
            # each layer [M, B, H, out, in]
            running_of_key_and_rate = stacked_starts((self.key_memory, self.rate_memory), x.shape[0])
            anchor_of_key_and_rate = running_of_key_and_rate
            # each layer [M, B, H, out, in]
            running_of_query = stacked_starts((self.query_memory,), x.shape[0])
            anchor_of_query = running_of_query
        reads: list[Tensor] = []
        for begin, end, opens in periods(x.shape[1], phase, 4):
            anchor = running if opens else anchor
            anchor_of_key_and_rate = running_of_key_and_rate if opens else anchor_of_key_and_rate
            anchor_of_query = running_of_query if opens else anchor_of_query
            now = x[:, begin:end]  # the tokens of this period
            # adaptive_stages.nl:5  key = x |> adaptive mlp(5, residual) { key = own |> unit, target = valu...
            key_own = answer(
                one_memory(anchor_of_key_and_rate, 0),
                split_heads(now, self.heads),
                residual=True,
                activation="gelu",
            )  # [B, H, T, d]
            key = unit(key_own)  # [B, H, T, d]
            # adaptive_stages.nl:7  query = x |> adaptive mlp(5, residual) { key = own, target = value } |>...
            query_own = answer(
                one_memory(anchor_of_query, 0), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            query = unit(query_own)  # [B, H, T, d]
            # adaptive_stages.nl:8  rate = x |> adaptive mlp(5, residual) { key = own |> unit, target = val...
            rate_own = answer(
                one_memory(anchor_of_key_and_rate, 1),
                split_heads(now, self.heads),
                residual=True,
                activation="gelu",
            )  # [B, H, T, d]
            rate = torch.sigmoid(self.rate_linear(merge_heads(rate_own)) + self.rate_start)
            rate = rate.transpose(1, 2)  # [B, H, T]
            # adaptive_stages.nl:9  retain = 0.95
            retain = constant_gate(key[..., 0], 0.95)  # [B, H, T]
            # what the memory answers, before this period is written
            reads.append(answer(one_memory(anchor, 0), query, residual=True, activation="gelu"))
            running, _ = frozen_fold(
                running,
                anchor,
                key,
                value[:, :, begin:end],
                rate,
                retain,
                objective="l2",
                residual=True,
                activation="gelu",
            )
            keys_of_key_and_rate = unit(torch.stack((key_own, rate_own)))  # [M, B, H, T, d]
            running_of_key_and_rate, _ = frozen_fold(
                running_of_key_and_rate,
                anchor_of_key_and_rate,
                keys_of_key_and_rate,
                value[:, :, begin:end],
                rate,
                retain,
                objective="l2",
                residual=True,
                activation="gelu",
            )
            keys_of_query = torch.stack((query_own,))  # [M, B, H, T, d]
            running_of_query, _ = frozen_fold(
                running_of_query,
                anchor_of_query,
                keys_of_query,
                value[:, :, begin:end],
                rate,
                retain,
                objective="l2",
                residual=True,
                activation="gelu",
            )
        read = torch.cat(reads, dim=2)  # [B, H, T, d]
        y = merge_heads(read)
        state = {
            "running": running,
            "anchor": anchor,
            "running_of_key_and_rate": running_of_key_and_rate,
            "anchor_of_key_and_rate": anchor_of_key_and_rate,
            "running_of_query": running_of_query,
            "anchor_of_query": anchor_of_query,
            "phase": torch.as_tensor((phase + x.shape[1]) % 4),
        }
        return y, state


class Block(nn.Module):
    """From adaptive_stages.nl:15."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_stages.nl:16  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From adaptive_stages.nl:19."""

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
        # adaptive_stages.nl:20  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |>...
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
