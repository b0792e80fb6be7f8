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
    faded,
    fast_starts,
    frozen_fold,
    initialise,
    merge_heads,
    one_memory,
    only_faded,
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
    """What is written is a constant of the model's loss.

    Read at the start of each period of 1, then folded over its writes (E6).
    From adaptive_stop.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.start = fast_starts(heads, (dim // heads, dim // heads))
        self.query_memory = fast_starts(heads, (dim // heads, dim // heads))
        self.retain_linear = nn.Linear(dim, heads, bias=False)
        self.retain_start = nn.Parameter(torch.full((heads,), 2.19722))  # begins at 0.9

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_stop.nl:9  retain = x |> linear(heads) |> sigmoid(start = 0.9)
        retain = torch.sigmoid(self.retain_linear(x) + self.retain_start).transpose(1, 2)  # [B, H, T]
        if "running" in state:
            running, anchor, phase = state["running"], state["anchor"], int(state["phase"])
            moments = state["moments"]
        else:
            # each layer [M, B, H, out, in]
            running = stacked_starts((self.start, self.query_memory), x.shape[0])
            anchor, phase = running, 0
            moments = tuple(torch.zeros_like(layer) for layer in running)
        reads: list[Tensor] = []
        for begin, end, opens in periods(x.shape[1], phase, 1):
            anchor = running if opens else anchor
            now = x[:, begin:end]  # the tokens of this period
            # adaptive_stop.nl:5  query = x |> adaptive linear |> unit
            query = answer(
                one_memory(anchor, 1), split_heads(now, self.heads), residual=False, activation="gelu"
            )  # [B, H, T, d]
            query = unit(query)  # [B, H, T, d]
            # adaptive_stop.nl:6  key = query
            key = query  # [B, H, T, d]
            # adaptive_stop.nl:7  value = query
            value = query  # [B, H, T, d]
            # adaptive_stop.nl:8  rate = 0.2
            rate = torch.full_like(key[..., 0], 0.2)  # [B, H, T]
            # adaptive_stop.nl:10  momentum = 0.5
            momentum = constant_gate(key[..., 0], 0.5)  # [B, H, T]
            # the memory is taught the value; each projection makes its own target from it
            targets = torch.cat(
                (value.unsqueeze(0), answer(all_but(anchor, 1), value, residual=False, activation="gelu"))
            )
            folded, moments = frozen_fold(
                running,
                faded(running, retain[:, :, begin:end]),
                key,
                targets,
                rate,
                retain[:, :, begin:end],
                moments=moments,
                momentum=momentum,
                objective="l2",
                residual=False,
                activation="gelu",
            )
            running = only_faded(running, folded, retain[:, :, begin:end])  # what was written is a constant
            moments = tuple(layer.detach() for layer in moments or ())
            # what the memory answers, after this period is written
            reads.append(answer(one_memory(running, 0), query, residual=False, activation="gelu"))
        read = torch.cat(reads, dim=2)  # [B, H, T, d]
        y = merge_heads(read)
        state = {
            "running": running,
            "anchor": anchor,
            "moments": moments,
            "phase": torch.as_tensor((phase + x.shape[1]) % 1),
        }
        return y, state


class Block(nn.Module):
    """From adaptive_stop.nl:16."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # adaptive_stop.nl:17  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From adaptive_stop.nl:20."""

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
        # adaptive_stop.nl:21  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> u...
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
