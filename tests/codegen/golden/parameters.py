"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import SwiGLU, fast_starts, frozen, initialise, merge_heads, rotary, split_heads

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    heads: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Numbers handed on from part to part, and arithmetic on them.

    Factored frozen gradient (E6): one coefficient matrix a period; no weights of single tokens.
    From parameters.nl:4.
    """

    retain_of_heads: Tensor

    def __init__(self, dim: int, heads: int, hidden: int, theta: int, strength: float) -> None:
        super().__init__()
        self.heads = heads
        self.theta = theta
        self.query_scale = (dim / heads) ** -0.5
        self.rate_constant = strength
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.register_buffer("retain_of_heads", 1 - 2 ** (-2 - torch.arange(float(heads))), persistent=False)
        self.start = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        position = state.get("position", 0)
        # parameters.nl:5  key = x |> linear |> rope(theta)
        key = rotary(split_heads(self.key_linear(x), self.heads), position, self.theta)  # [B, H, T, d]
        # parameters.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # parameters.nl:7  query = x |> linear |> rope(theta) |> scale((dim / heads) ^ (-0.5))
        query = rotary(split_heads(self.query_linear(x), self.heads), position, self.theta)
        query = query * self.query_scale  # [B, H, T, d]
        # parameters.nl:8  rate = strength
        rate = torch.full_like(key[..., 0], self.rate_constant)  # [B, H, T]
        # parameters.nl:9  retain = 1 - 2 ^ (-2 - head)
        retain = self.retain_of_heads[:, None].expand_as(key[..., 0])  # [B, H, T]
        read, core = frozen(
            query,
            key,
            value,
            rate=rate,
            retain=retain,
            start=tuple(self.start),
            map="mlp",
            period=5,
            objective="l2",
            residual=False,
            activation="gelu",
            read="after",
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"position": torch.as_tensor(position + x.shape[1]), "core": core}


class Block(nn.Module):
    """From parameters.nl:15."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=heads, hidden=2 * dim // heads, theta=10_000, strength=1 / heads)
        self.ffn_norm = nn.RMSNorm(dim, eps=1e-6)
        self.ffn_swiglu = SwiGLU(dim, width)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # parameters.nl:16  mixer: x = x + (x |> rmsnorm |> Mixer(dim, heads = heads, strength = 1 / he...
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        # parameters.nl:17  ffn: x = x + (x |> rmsnorm |> swiglu(width))
        x = x + self.ffn_swiglu(self.ffn_norm(x))
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From parameters.nl:20."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(Block(config.dim, heads=config.heads, width=3 * config.dim))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # parameters.nl:21  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim, heads, 3 * dim)) |>...
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
