"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import fast_linear, fast_start, initialise, layered, merge_heads, rms_normed, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Layered frozen gradient (E5, E6): inputs and errors of every layer by one pass through the map; no
    weights of single tokens.

    From layered_block.nl:10.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.retain_linear = nn.Linear(dim, heads, bias=False)
        self.retain_start = nn.Parameter(torch.full((heads,), 2.94444))  # begins at 0.95
        self.start = nn.ParameterDict(
            {
                "W_left_norm": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_left_linear": fast_start(heads, dim, dim // heads),
                "W_right_linear": fast_start(heads, dim, dim // heads),
                "W_right_bias": nn.Parameter(torch.zeros(heads, dim)),
                "W_right_start": nn.Parameter(torch.zeros(heads, dim)),
                "W_linear": fast_start(heads, dim // heads, dim),
            },
        )

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # layered_block.nl:11  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # layered_block.nl:12  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # layered_block.nl:13  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # layered_block.nl:14  rate = 0.1
        rate = torch.full_like(key[..., 0], 0.1)  # [B, H, T]
        # layered_block.nl:15  retain = x |> linear(heads) |> sigmoid(start = 0.95)
        retain = torch.sigmoid(self.retain_linear(x) + self.retain_start).transpose(1, 2)  # [B, H, T]
        start = dict(self.start.items())
        read, core = layered(
            query,
            key,
            value,
            rate=rate,
            retain=retain,
            start=start,
            map={
                "kind": "block",
                "function": self.branches_map,
                "shapes": {n: w.shape[1:] for n, w in start.items()},
            },
            objective="l2",
            anchor=4,
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}

    @staticmethod
    def branches_map(weights: dict[str, Any], x: Tensor) -> Tensor:
        """The block `Branches` with these weights, `x` `[..., d]` of one head."""
        # layered_block.nl:5  left = x |> rmsnorm |> linear(hidden) |> tanh
        left = torch.tanh(fast_linear(rms_normed(x, 1e-6) * weights["W_left_norm"], weights["W_left_linear"]))
        # layered_block.nl:6  right = x |> linear(hidden, bias) |> sigmoid(start = 0.5)
        right = torch.sigmoid(
            fast_linear(x, weights["W_right_linear"]) + weights["W_right_bias"] + weights["W_right_start"]
        )
        # layered_block.nl:7  x = x + (left * right |> linear(dim)) * 0.5
        x = x + fast_linear(left * right, weights["W_linear"]) * 0.5
        return x


class Block(nn.Module):
    """From layered_block.nl:20."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # layered_block.nl:21  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From layered_block.nl:24."""

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
        # layered_block.nl:25  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> u...
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
