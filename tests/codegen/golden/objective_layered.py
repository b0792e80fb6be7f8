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
    """An error that counts as its square where it is small and as its size where it is large, by a margin of
    the token's own.

    Layered frozen gradient (E5, E6): inputs and errors of every layer by one pass through the map; no
    weights of single tokens.
    From objective_layered.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = dim
        self.margin_linear = nn.Linear(dim, heads, bias=False)
        self.margin_start = nn.Parameter(torch.full((heads,), -0.432752))  # begins at 0.5
        self.shift_linear = nn.Linear(dim, dim, bias=False)
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -2.19722))  # begins at 0.1
        self.start = fast_starts(heads, (dim, dim // heads), (dim // heads, dim))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # objective_layered.nl:9  margin = x |> linear(heads) |> softplus(start = 0.5)
        margin = F.softplus(self.margin_linear(x) + self.margin_start)  # [B, T, d]
        # objective_layered.nl:10  shift = x |> linear
        shift = self.shift_linear(x)  # [B, T, d]
        # objective_layered.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # objective_layered.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # objective_layered.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # objective_layered.nl:8  rate = x |> linear(heads) |> sigmoid(start = 0.1)
        rate = torch.sigmoid(self.rate_linear(x) + self.rate_start).transpose(1, 2)  # [B, H, T]
        objective_margin = margin.transpose(1, 2)  # [B, H, T]
        objective_shift = split_heads(shift, self.heads)  # [B, H, T, d]
        read, core = layered(
            query,
            key,
            value,
            rate=rate,
            objective_parameter=(objective_margin[..., None], objective_shift),
            start=tuple(self.start),
            map={
                "kind": "mlp",
                "hidden": self.hidden,
                "depth": 2,
                "residual": True,
                "norm": True,
                "activation": "gelu",
            },
            objective=self.objective,
            anchor=4,
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}

    @staticmethod
    def objective(memory: Any, key: Tensor, value: Tensor, margin: Tensor, shift: Tensor) -> Tensor:
        """`margin * log(cosh(M(key) - value - 0.1 * shift)) + 0.1 * abs(M(key) - value) ^ p / p`, summe..."""
        found = memory(key)
        loss = (
            margin * torch.log(torch.cosh(found - value - 0.1 * shift))
            + 0.1 * torch.abs(found - value) ** 3 / 3
        )
        return loss.sum(-1)


class Block(nn.Module):
    """From objective_layered.nl:16."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # objective_layered.nl:17  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From objective_layered.nl:20."""

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
        # objective_layered.nl:21  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm...
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
