"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import delta, fast_starts, frozen, initialise, merge_heads, split_heads, unit

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 2
    vocab: int = 11


class FollowFast(nn.Module):
    """Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.

    From chain_local.nl:8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # chain_local.nl:11  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), 1))  # [B, H, T, d]
        # chain_local.nl:12  value = x |> linear
        value = split_heads(self.value_linear(x), 1)  # [B, H, T, d]
        query = key  # [B, H, T, d]
        # chain_local.nl:13  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class FollowSlow(nn.Module):
    """Factored frozen gradient (E6): one coefficient matrix a period; no weights of single tokens.

    From chain_local.nl:15.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.start = fast_starts(1, (hidden, dim), (dim, hidden))
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # chain_local.nl:18  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), 1))  # [B, H, T, d]
        # chain_local.nl:19  value = x |> linear
        value = split_heads(self.value_linear(x), 1)  # [B, H, T, d]
        # chain_local.nl:20  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), 1))  # [B, H, T, d]
        # chain_local.nl:21  rate = 0.1
        rate = torch.full_like(key[..., 0], 0.1)  # [B, H, T]
        read, core = frozen(
            query,
            key,
            value,
            rate=rate,
            start=tuple(self.start),
            map="mlp",
            period=4,
            objective="dot",
            residual=False,
            activation="gelu",
            read="boundary",
            state=state.get("core"),
        )  # [B, H, T, d]
        # chain_local.nl:23  out = x + (read |> linear)
        y = x + self.out_linear(merge_heads(read))
        return y, {"core": core}


class Follow(nn.Module):
    """Levels that learn from keys and values of their own, one after the other, and side by side.

    Weights with clocks of their own, one after the other.
    From chain_local.nl:4.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # chain_local.nl:8  every 1 token
        self.fast = FollowFast(dim)
        # chain_local.nl:15  every 4 tokens
        self.slow = FollowSlow(dim, hidden=hidden)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        x, fast_state = self.fast(x, state.get("fast"))
        x, slow_state = self.slow(x, state.get("slow"))
        return x, {"fast": fast_state, "slow": slow_state}


class BesideFast(nn.Module):
    """Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.

    From chain_local.nl:32.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # chain_local.nl:32  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), 1))  # [B, H, T, d]
        # chain_local.nl:32  value = x |> linear
        value = split_heads(self.value_linear(x), 1)  # [B, H, T, d]
        query = key  # [B, H, T, d]
        # chain_local.nl:32  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class BesideSlow(nn.Module):
    """Factored frozen gradient (E6): one coefficient matrix a period; no weights of single tokens.

    From chain_local.nl:33.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # chain_local.nl:36  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), 1))  # [B, H, T, d]
        # chain_local.nl:37  value = x |> linear
        value = split_heads(self.value_linear(x), 1)  # [B, H, T, d]
        query = key  # [B, H, T, d]
        # chain_local.nl:38  rate = 0.5
        rate = torch.full_like(key[..., 0], 0.5)  # [B, H, T]
        read, core = frozen(
            query,
            key,
            value,
            rate=rate,
            map="matrix",
            period=4,
            objective="l2",
            read="boundary",
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}


class Beside(nn.Module):
    """Weights with clocks of their own, side by side.

    From chain_local.nl:28.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # chain_local.nl:32  every 1 token
        self.fast = BesideFast(dim)
        # chain_local.nl:33  every 4 tokens
        self.slow = BesideSlow(dim)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        fast, fast_state = self.fast(x, state.get("fast"))
        slow, slow_state = self.slow(x, state.get("slow"))
        return (fast + slow) / 2, {"fast": fast_state, "slow": slow_state}


class Block(nn.Module):
    """From chain_local.nl:44."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.follow_norm = nn.RMSNorm(dim, eps=1e-6)
        self.follow = Follow(dim, hidden=2 * dim)
        self.beside_norm = nn.RMSNorm(dim, eps=1e-6)
        self.beside = Beside(dim)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # chain_local.nl:45  follow: x = x + (x |> rmsnorm |> Follow(dim))
        y, follow_state = self.follow(self.follow_norm(x), state.get("follow"))
        x = x + y
        # chain_local.nl:46  beside: x = x + (x |> rmsnorm |> Beside(dim))
        y, beside_state = self.beside(self.beside_norm(x), state.get("beside"))
        x = x + y
        return x, {"follow": follow_state, "beside": beside_state}


class Small(nn.Module):
    """From chain_local.nl:49."""

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
        # chain_local.nl:50  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> une...
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
