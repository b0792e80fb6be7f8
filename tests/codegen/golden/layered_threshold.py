"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import fast_starts, initialise, layered, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """An error that counts by its size up to a threshold of the token's own.

    Layered frozen gradient (E5, E6): inputs and errors of every layer by one pass through the map; no
    weights of single tokens.
    From layered_threshold.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = dim
        self.threshold_linear = nn.Linear(dim, heads, bias=False)
        self.threshold_start = nn.Parameter(torch.full((heads,), -0.432752))  # begins at 0.5
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -2.19722))  # begins at 0.1
        self.start = fast_starts(heads, (dim, dim // heads), (dim // heads, dim))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # layered_threshold.nl:9  threshold = x |> linear(heads) |> softplus(start = 0.5)
        threshold = F.softplus(self.threshold_linear(x) + self.threshold_start)  # [B, T, d]
        # layered_threshold.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # layered_threshold.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # layered_threshold.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # layered_threshold.nl:8  rate = x |> linear(heads) |> sigmoid(start = 0.1)
        rate = torch.sigmoid(self.rate_linear(x) + self.rate_start).transpose(1, 2)  # [B, H, T]
        objective_threshold = threshold.transpose(1, 2)  # [B, H, T]
        read, core = layered(
            query,
            key,
            value,
            rate=rate,
            objective_parameter=objective_threshold,
            start=tuple(self.start),
            map={
                "kind": "mlp",
                "hidden": self.hidden,
                "depth": 2,
                "residual": True,
                "norm": True,
                "activation": "gelu",
            },
            objective="huber",
            anchor=4,
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Block(nn.Module):
    """From layered_threshold.nl:15."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # layered_threshold.nl:16  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From layered_threshold.nl:19."""

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
        # layered_threshold.nl:20  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm...
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
