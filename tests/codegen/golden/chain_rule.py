"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import Learning, TaskMatrix, TaskMLP, initialise, learn_in_sequence, rule_root

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class Store(nn.Module):
    """Weights of each sequence with clocks of their own, one after the other.

    From chain_rule.nl:9.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # chain_rule.nl:13  every 2 tokens
        self.fast = TaskMLP(
            dim,
            hidden,
            learning=Learning(
                period=2,
                rate=0.05,
                reduce="mean",
                rule=self.softened_step,
                memories={"average": ("rows", "columns")},
            ),
        )
        # chain_rule.nl:14  every 4 tokens
        self.slow = TaskMatrix(
            dim,
            learning=Learning(
                period=4,
                rate=0.05,
                retain=0.9,
                rule=self.adamw_step,
                memories={"first": ("rows", "columns"), "second": ("rows", "columns")},
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.fast(x)
        x = self.slow(x)
        return x

    @staticmethod
    def softened_step(
        weight: Tensor, grad: Tensor, state: dict[str, Tensor], rate: Tensor, step: int, *, beta: float = 0.5
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One update of `softened`, number `step`: the weights and the state after it."""
        average = state["average"]
        average = average + (1 - beta) * (grad - average)
        new_weight = weight - rate * average / (torch.abs(average) + 0.1)
        return new_weight, {"average": average}

    @staticmethod
    def adamw_step(
        weight: Tensor,
        grad: Tensor,
        state: dict[str, Tensor],
        rate: Tensor,
        step: int,
        *,
        beta1: float = 0.8,
        beta2: float = 0.999,
        eps: float = 1e-08,
        decay: float = 0.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One update of `adamw`, number `step`: the weights and the state after it."""
        first = state["first"]
        second = state["second"]
        first = first + (1 - beta1) * (grad - first)
        second = second + (1 - beta2) * (grad**2 - second)
        new_weight = weight * (1 - rate * decay) - rate * (first / (1 - beta1**step)) / (
            rule_root(second / (1 - beta2**step)) + eps
        )
        return new_weight, {"first": first, "second": second}


class Block(nn.Module):
    """From chain_rule.nl:18."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.store_norm = nn.RMSNorm(dim, eps=1e-6)
        self.store = Store(dim, hidden=2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        # chain_rule.nl:19  store: x = x + (x |> rmsnorm |> Store(dim))
        x = x + self.store(self.store_norm(x))
        return x


class Small(nn.Module):
    """From chain_rule.nl:22."""

    compile_region = False  # inner gradients are taken by what layers in its blocks answer

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
        return learn_in_sequence(self, self.read, tokens, state)

    def read(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The same while all weights stand still: the tokens between two updates, or some of them."""
        # chain_rule.nl:23  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unem...
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight), {}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
