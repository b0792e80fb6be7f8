"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import any_map, fast_starts, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """An answer to the key that is near the value, and far from the answer to another key.

    Any map (E5): rows of coefficients pulled back through the objective, whatever map and objective are.
    From objective_answers.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = dim
        self.other_linear = nn.Linear(dim, dim, bias=False)
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -2.19722))  # begins at 0.1
        self.start = fast_starts(heads, (dim, dim // heads), (dim // heads, dim))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # objective_answers.nl:8  other = x |> linear |> unit
        other = unit(split_heads(self.other_linear(x), self.heads))  # [B, H, T, d]
        # objective_answers.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # objective_answers.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # objective_answers.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # objective_answers.nl:9  rate = x |> linear(heads) |> sigmoid(start = 0.1)
        rate = torch.sigmoid(self.rate_linear(x) + self.rate_start).transpose(1, 2)  # [B, H, T]
        read, core = any_map(
            query,
            key,
            value,
            rate=rate,
            objective_parameter=(other,),
            start=tuple(self.start),
            map={
                "kind": "mlp",
                "hidden": self.hidden,
                "depth": 2,
                "residual": False,
                "norm": False,
                "activation": "gelu",
            },
            objective=self.objective,
            anchor=4,
            window=3,
            gradient="first_order",
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}

    @staticmethod
    def objective(memory: Any, key: Tensor, value: Tensor, other: Tensor) -> Tensor:
        """`0.5 * (M(key) - value) ^ 2 + exp(-(M(key) - M(other)) ^ 2)`, summed over channels."""
        found = memory(key)
        found_2 = memory(other)
        loss = 0.5 * (found - value) ** 2 + torch.exp(-1 * (found - found_2) ** 2)
        return loss.sum(-1)


class Block(nn.Module):
    """From objective_answers.nl:17."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # objective_answers.nl:18  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From objective_answers.nl:21."""

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
        # objective_answers.nl:22  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm...
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
