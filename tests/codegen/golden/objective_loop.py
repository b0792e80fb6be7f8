"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import CausalConv, constant_gate, initialise, merge_heads, split_heads, token_loop, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Gradients at every token of an objective of one's own: what it reads may be written where it is read.

    Token loop (f): the definition itself, token by token: exact, and slow.
    From objective_loop.nl:4.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.rate_start = nn.Parameter(torch.full((heads,), -2.19722))  # begins at 0.1
        self.objective_1_linear = nn.Linear(dim, heads, bias=False)
        self.objective_2_conv = CausalConv(dim, 2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # objective_loop.nl:5  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # objective_loop.nl:6  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # objective_loop.nl:7  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # objective_loop.nl:8  rate = x |> linear(heads) |> sigmoid(start = 0.1)
        rate = torch.sigmoid(self.rate_linear(x) + self.rate_start).transpose(1, 2)  # [B, H, T]
        # objective_loop.nl:9  retain = 0.95
        retain = constant_gate(key[..., 0], 0.95)  # [B, H, T]
        objective_1 = torch.sigmoid(self.objective_1_linear(x)).transpose(1, 2)  # [B, H, T]
        objective_2, objective_2_conv = self.objective_2_conv(x, state.get("objective_2_conv"))
        objective_2 = split_heads(merge_heads(key) + objective_2, self.heads)  # [B, H, T, d]
        read, core = token_loop(
            query,
            key,
            value,
            rate=rate,
            retain=retain,
            objective_parameter=(objective_1[..., None], rate[..., None], objective_2),
            map={"kind": "matrix"},
            objective=self.objective,
            rule="gd",
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"objective_2_conv": objective_2_conv, "core": core}

    @staticmethod
    def objective(
        memory: Any, key: Tensor, value: Tensor, given_1: Tensor, rate: Tensor, given_2: Tensor
    ) -> Tensor:
        """`(x |> linear(heads) |> sigmoid) * (M(key) - value |> tanh) ^ 2 + 0.1 * rate * M(key + (x |>..."""
        found = memory(key)
        found_2 = memory(given_2)
        loss = given_1 * torch.tanh(found - value) ** 2 + 0.1 * rate * found_2**2
        return loss.sum(-1)


class Block(nn.Module):
    """From objective_loop.nl:14."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # objective_loop.nl:15  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From objective_loop.nl:18."""

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
        # objective_loop.nl:19  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |>...
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
