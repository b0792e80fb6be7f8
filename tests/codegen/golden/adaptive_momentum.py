"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    all_but,
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
    """A memory that writes its own projections with momentum.

    Read at the start of each period of 4, then folded over its writes (E6).
    From adaptive_momentum.nl:4.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.key_memory = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.query_memory = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.momentum_linear = nn.Linear(dim, heads, bias=False)
        self.momentum_start = nn.Parameter(torch.full((heads,), 0.0))  # begins at 0.5

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_momentum.nl:6  value = x |> linear |> unit
        value = unit(split_heads(self.value_linear(x), self.heads))  # [B, H, T, d]
        # adaptive_momentum.nl:10  momentum = x |> linear(heads) |> sigmoid(start = 0.5)
        momentum = torch.sigmoid(self.momentum_linear(x) + self.momentum_start).transpose(1, 2)  # [B, H, T]
        if "running" in state:
            running, anchor, phase = state["running"], state["anchor"], int(state["phase"])
            moments = state["moments"]
        else:
            # each layer [M, B, H, out, in]
            running = stacked_starts((self.start, self.key_memory, self.query_memory), x.shape[0])
            anchor, phase = running, 0
            moments = tuple(torch.zeros_like(layer) for layer in running)
        reads: list[Tensor] = []
        for begin, end, opens in periods(x.shape[1], phase, 4):
            anchor = running if opens else anchor
            now = x[:, begin:end]  # the tokens of this period
            # adaptive_momentum.nl:5  key = x |> adaptive mlp(hidden, residual) |> unit
            key = answer(
                one_memory(anchor, 1), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            key = unit(key)  # [B, H, T, d]
            # adaptive_momentum.nl:7  query = x |> adaptive mlp(hidden, residual) |> unit
            query = answer(
                one_memory(anchor, 2), split_heads(now, self.heads), residual=True, activation="gelu"
            )  # [B, H, T, d]
            query = unit(query)  # [B, H, T, d]
            # adaptive_momentum.nl:8  rate = 0.1
            rate = torch.full_like(key[..., 0], 0.1)  # [B, H, T]
            # adaptive_momentum.nl:9  retain = 0.95
            retain = constant_gate(key[..., 0], 0.95)  # [B, H, T]
            # what the memory answers, before this period is written
            reads.append(answer(one_memory(anchor, 0), query, residual=True, activation="gelu"))
            # the memory is taught the value; each projection makes its own target from it
            targets = torch.cat(
                (
                    value[:, :, begin:end].unsqueeze(0),
                    answer(all_but(anchor, 1), value[:, :, begin:end], residual=True, activation="gelu"),
                ),
            )
            running, moments = frozen_fold(
                running,
                anchor,
                key,
                targets,
                rate,
                retain,
                moments=moments,
                momentum=momentum[:, :, begin:end],
                objective="l2",
                residual=True,
                activation="gelu",
            )
        read = torch.cat(reads, dim=2)  # [B, H, T, d]
        y = merge_heads(read)
        state = {
            "running": running,
            "anchor": anchor,
            "moments": moments,
            "phase": torch.as_tensor((phase + x.shape[1]) % 4),
        }
        return y, state


class Block(nn.Module):
    """From adaptive_momentum.nl:17."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2, hidden=5)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_momentum.nl:18  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From adaptive_momentum.nl:21."""

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
        # adaptive_momentum.nl:22  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm...
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
