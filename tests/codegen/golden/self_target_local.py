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
    """A local pipeline that several fields share, one of them written by the memory.

    Read at the start of each period of 4, then folded over its writes (E12).
    From self_target_local.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.key_memory = fast_starts(heads, (5, dim // heads), (dim // heads, 5))
        self.seen_conv = CausalConv(dim, 2)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -2.19722))  # begins at 0.1
        self.out_norm = nn.RMSNorm(dim // heads, eps=1e-6)
        self.out_linear = nn.Linear(dim, dim, bias=False)
        self.out_linear_2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # self_target_local.nl:5  seen = x |> conv(2) |> silu
        seen, seen_conv = self.seen_conv(x, state.get("seen_conv"))
        seen = F.silu(seen)  # [B, T, d]
        # self_target_local.nl:7  value = seen |> linear |> unit
        value = unit(split_heads(self.value_linear(seen), self.heads))  # [B, H, T, d]
        # self_target_local.nl:8  query = seen |> linear |> unit
        query = unit(split_heads(self.query_linear(seen), self.heads))  # [B, H, T, d]
        if "running" in state:
            running, anchor, phase = state["running"], state["anchor"], int(state["phase"])
        else:
            # each layer [M, B, H, out, in]
            running = stacked_starts((self.start, self.key_memory), x.shape[0])
            anchor, phase = running, 0
        reads: list[Tensor] = []
        for begin, end, opens in periods(x.shape[1], phase, 4):
            anchor = running if opens else anchor
            # self_target_local.nl:6  key = seen |> adaptive mlp(5, residual) |> unit
            key = answer(
                one_memory(anchor, 1),
                split_heads(seen[:, begin:end], self.heads),
                residual=True,
                activation="gelu",
            )  # [B, H, T, d]
            key = unit(key)  # [B, H, T, d]
            # self_target_local.nl:9  rate = key |> linear(heads) |> sigmoid(start = 0.1)
            rate = torch.sigmoid(self.rate_linear(merge_heads(key)) + self.rate_start)
            rate = rate.transpose(1, 2)  # [B, H, T]
            # what the memory answers, before this period is written
            reads.append(
                answer(one_memory(anchor, 0), query[:, :, begin:end], residual=True, activation="gelu")
            )
            # every memory makes its own target from the value
            targets = unit(answer(anchor, value[:, :, begin:end], residual=True, activation="gelu"))
            running, _ = deep_dgd_fold(
                running,
                anchor,
                key,
                targets,
                rate,
                torch.ones_like(key[..., 0]),
                objective="dot",
                residual=True,
                activation="gelu",
                reading="first_layer",
            )
        read = torch.cat(reads, dim=2)  # [B, H, T, d]
        # self_target_local.nl:16  out = (read |> rmsnorm) * (seen |> linear |> silu) |> linear
        y = self.out_linear_2(merge_heads(self.out_norm(read)) * F.silu(self.out_linear(seen)))
        state = {
            "seen_conv": seen_conv,
            "running": running,
            "anchor": anchor,
            "phase": torch.as_tensor((phase + x.shape[1]) % 4),
        }
        return y, state


class Block(nn.Module):
    """From self_target_local.nl:19."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # self_target_local.nl:20  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From self_target_local.nl:23."""

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
        # self_target_local.nl:24  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm...
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
