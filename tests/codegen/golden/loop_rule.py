"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import constant_gate, initialise, merge_heads, split_heads, token_loop, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Mixer(nn.Module):
    """Token loop (f): the definition itself, token by token: exact, and slow.

    From loop_rule.nl:10.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # loop_rule.nl:11  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # loop_rule.nl:12  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # loop_rule.nl:13  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # loop_rule.nl:14  rate = x |> linear(heads) |> sigmoid
        rate = torch.sigmoid(self.rate_linear(x)).transpose(1, 2)  # [B, H, T]
        # loop_rule.nl:15  retain = 0.95
        retain = constant_gate(key[..., 0], 0.95)  # [B, H, T]
        read, core = token_loop(
            query,
            key,
            value,
            rate=rate,
            retain=retain,
            map={"kind": "matrix"},
            objective="l2",
            rule=self.lion_step,
            memories={"average": ("rows", "columns")},
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}

    @staticmethod
    def lion_step(
        weight: Tensor,
        grad: Tensor,
        state: dict[str, Tensor],
        rate: Tensor,
        step: int,
        *,
        beta1: float = 0.8,
        beta2: float = 0.99,
        decay: float = 0.1,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One update of `lion`, number `step`: the weights and the state after it."""
        average = state["average"]
        near = beta1 * average + (1 - beta1) * grad
        average = average + (1 - beta2) * (grad - average)
        new_weight = weight * (1 - rate * decay) - rate * near / (torch.abs(near) + 0.01)
        return new_weight, {"average": average}


class Block(nn.Module):
    """From loop_rule.nl:19."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # loop_rule.nl:20  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From loop_rule.nl:23."""

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
        # loop_rule.nl:24  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unemb...
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
