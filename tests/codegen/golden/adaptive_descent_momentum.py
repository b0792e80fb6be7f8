"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    CausalConv,
    answer,
    deep_dgd_fold,
    fast_starts,
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
    """A memory that writes its own projections by delta gradient descent with momentum.

    Read at the start of each period of 4, then folded over its writes (E12).
    From adaptive_descent_momentum.nl:4.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.key_memory = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.value_memory = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.rate_memory = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.retain_memory = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.query_conv = CausalConv(dim, 3)
        self.momentum_linear = nn.Linear(dim, heads, bias=False)
        self.momentum_start = nn.Parameter(torch.full((heads,), 0.0))  # begins at 0.5
        self.key_conv = CausalConv(dim, 3)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -1.38629))  # begins at 0.2
        self.retain_linear = nn.Linear(dim, heads, bias=False)
        self.retain_start = nn.Parameter(torch.full((heads,), 2.94444))  # begins at 0.95
        self.out_norm = nn.RMSNorm(dim // heads, eps=1e-6)
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_descent_momentum.nl:7  query = x |> linear |> conv(3) |> unit
        query, query_conv = self.query_conv(self.query_linear(x), state.get("query_conv"))
        query = unit(split_heads(query, self.heads))  # [B, H, T, d]
        # adaptive_descent_momentum.nl:10  momentum = x |> linear(heads) |> sigmoid(start = 0.5)
        momentum = torch.sigmoid(self.momentum_linear(x) + self.momentum_start).transpose(1, 2)  # [B, H, T]
        if "running" in state:
            running, anchor, phase = state["running"], state["anchor"], int(state["phase"])
            moments = state["moments"]
        else:
            running = stacked_starts(
                (self.start, self.key_memory, self.value_memory, self.rate_memory, self.retain_memory),
                x.shape[0],
            )  # each layer [M, B, H, out, in]
            anchor, phase = running, 0
            moments = tuple(torch.zeros_like(layer) for layer in running)
        key_conv = state.get("key_conv")
        reads: list[Tensor] = []
        for begin, end, opens in periods(x.shape[1], phase, 4):
            anchor = running if opens else anchor
            now = x[:, begin:end]  # the tokens of this period
            # adaptive_descent_momentum.nl:5  key = x |> adaptive mlp(hidden, residual) |> conv(3) |> unit
            key = answer(
                one_memory(anchor, 1), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            key, key_conv = self.key_conv(merge_heads(key), key_conv)
            key = unit(split_heads(key, self.heads))  # [B, H, T, d]
            # adaptive_descent_momentum.nl:6  value = x |> adaptive mlp(hidden, residual) |> unit
            value = answer(
                one_memory(anchor, 2), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            value = unit(value)  # [B, H, T, d]
            # adaptive_descent_momentum.nl:8  rate = x |> adaptive mlp(hidden, residual) |> linear(heads) |...
            rate = answer(
                one_memory(anchor, 3), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            rate = torch.sigmoid(self.rate_linear(merge_heads(rate)) + self.rate_start)
            rate = (rate * 0.2).transpose(1, 2)  # [B, H, T]
            # adaptive_descent_momentum.nl:9  retain = x |> adaptive mlp(hidden, residual) |> linear(heads)...
            retain = answer(
                one_memory(anchor, 4), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            retain = torch.sigmoid(self.retain_linear(merge_heads(retain)) + self.retain_start)
            retain = retain.transpose(1, 2)  # [B, H, T]
            # what the memory answers, before this period is written
            reads.append(
                answer(one_memory(anchor, 0), query[:, :, begin:end], residual=True, activation="gelu")
            )
            # every memory makes its own target from the value
            targets = unit(answer(anchor, value, residual=True, activation="gelu"))
            running, moments = deep_dgd_fold(
                running,
                anchor,
                key,
                targets,
                rate,
                retain,
                moments=moments,
                momentum=momentum[:, :, begin:end],
                objective="dot",
                residual=True,
                activation="gelu",
            )
        read = torch.cat(reads, dim=2)  # [B, H, T, d]
        # adaptive_descent_momentum.nl:17  out = read |> rmsnorm |> linear
        y = self.out_linear(merge_heads(self.out_norm(read)))
        state = {
            "query_conv": query_conv,
            "key_conv": key_conv,
            "running": running,
            "anchor": anchor,
            "moments": moments,
            "phase": torch.as_tensor((phase + x.shape[1]) % 4),
        }
        return y, state


class Block(nn.Module):
    """From adaptive_descent_momentum.nl:20."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2, hidden=5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_descent_momentum.nl:21  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From adaptive_descent_momentum.nl:24."""

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
        # adaptive_descent_momentum.nl:25  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |>...
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
