"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    answer,
    deep_dgd_fold,
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
    """Projections with clocks, rules and depths of their own.

    Read at the start of their own periods (2, 4 and 8 tokens), then folded over its writes (E12).
    From adaptive_clocks.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.key_memory = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.value_memory = fast_starts(heads, (dim // heads, dim // heads))
        self.retain_memory = fast_starts(heads, (5, dim // heads), (5, 5), (dim // heads, 5))
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.retain_linear = nn.Linear(dim, heads, bias=False)
        self.retain_start = nn.Parameter(torch.full((heads,), 2.19722))  # begins at 0.9

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_clocks.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        if "running" in state:
            running, anchor, phase = state["running"], state["anchor"], int(state["phase"])
            running_of_key, anchor_of_key = state["running_of_key"], state["anchor_of_key"]
            running_of_value, anchor_of_value = state["running_of_value"], state["anchor_of_value"]
            running_of_retain, anchor_of_retain = state["running_of_retain"], state["anchor_of_retain"]
        else:
            running = stacked_starts((self.start,), x.shape[0])  # each layer [M, B, H, out, in]
            anchor, phase = running, 0
            running_of_key = stacked_starts((self.key_memory,), x.shape[0])  # each layer [M, B, H, out, in]
            anchor_of_key = running_of_key
            # each layer [M, B, H, out, in]
            running_of_value = stacked_starts((self.value_memory,), x.shape[0])
            anchor_of_value = running_of_value
            # each layer [M, B, H, out, in]
            running_of_retain = stacked_starts((self.retain_memory,), x.shape[0])
            anchor_of_retain = running_of_retain
        reads: list[Tensor] = []
        for begin, end, opens in periods(x.shape[1], phase % 2, 2):
            anchor = running if (phase + begin) % 4 == 0 else anchor
            anchor_of_key = running_of_key if (phase + begin) % 8 == 0 else anchor_of_key
            anchor_of_value = running_of_value if opens else anchor_of_value
            anchor_of_retain = running_of_retain if (phase + begin) % 4 == 0 else anchor_of_retain
            now = x[:, begin:end]  # the tokens of this period
            # adaptive_clocks.nl:5  key = x |> adaptive mlp(5, residual) { update = every 8 tokens } |> unit
            key = answer(
                one_memory(anchor_of_key, 0), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            key = unit(key)  # [B, H, T, d]
            # adaptive_clocks.nl:6  value = x |> adaptive linear { update = every 2 tokens, rule = gd } |>...
            value = answer(
                one_memory(anchor_of_value, 0),
                split_heads(now, self.heads),
                residual=False,
                activation="gelu",
            )  # [B, H, T, d]
            value = unit(value)  # [B, H, T, d]
            # adaptive_clocks.nl:8  rate = 0.1
            rate = torch.full_like(key[..., 0], 0.1)  # [B, H, T]
            # adaptive_clocks.nl:9  retain = x |> adaptive mlp(5, depth = 3, residual) { target = value } |...
            retain = answer(
                one_memory(anchor_of_retain, 0),
                split_heads(now, self.heads),
                residual=True,
                activation="gelu",
            )  # [B, H, T, d]
            retain = torch.sigmoid(self.retain_linear(merge_heads(retain)) + self.retain_start)
            retain = retain.transpose(1, 2)  # [B, H, T]
            # what the memory answers, before this period is written
            reads.append(
                answer(one_memory(anchor, 0), query[:, :, begin:end], residual=True, activation="gelu")
            )
            # every memory makes its own target from the value
            targets = unit(answer(anchor, value, residual=True, activation="gelu"))
            running, _ = deep_dgd_fold(
                running, anchor, key, targets, rate, retain, objective="dot", residual=True, activation="gelu"
            )
            # the target that the key makes itself
            targets_of_key = unit(answer(anchor_of_key, value, residual=True, activation="gelu"))
            running_of_key, _ = deep_dgd_fold(
                running_of_key,
                anchor_of_key,
                key,
                targets_of_key,
                rate,
                retain,
                objective="dot",
                residual=True,
                activation="gelu",
            )
            # the target that the value makes itself
            targets_of_value = unit(answer(anchor_of_value, value, residual=False, activation="gelu"))
            running_of_value, _ = frozen_fold(
                running_of_value,
                anchor_of_value,
                key,
                targets_of_value,
                rate,
                retain,
                objective="dot",
                residual=False,
                activation="gelu",
            )
            running_of_retain, _ = deep_dgd_fold(
                running_of_retain,
                anchor_of_retain,
                key,
                value,
                rate,
                retain,
                objective="dot",
                residual=True,
                activation="gelu",
            )
        read = torch.cat(reads, dim=2)  # [B, H, T, d]
        y = merge_heads(read)
        state = {
            "running": running,
            "anchor": anchor,
            "running_of_key": running_of_key,
            "anchor_of_key": anchor_of_key,
            "running_of_value": running_of_value,
            "anchor_of_value": anchor_of_value,
            "running_of_retain": running_of_retain,
            "anchor_of_retain": anchor_of_retain,
            "phase": torch.as_tensor((phase + x.shape[1]) % 8),
        }
        return y, state


class Block(nn.Module):
    """From adaptive_clocks.nl:17."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_clocks.nl:18  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From adaptive_clocks.nl:21."""

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
        # adaptive_clocks.nl:22  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |>...
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
