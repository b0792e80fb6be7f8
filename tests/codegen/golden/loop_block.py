"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    fast_linear,
    fast_start,
    initialise,
    layer_normed,
    merge_heads,
    rms_normed,
    split_heads,
    token_loop,
    unit,
)

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    depth: int = 1
    vocab: int = 11


class Mixer(nn.Module):
    """Token loop (f): the definition itself, token by token: exact, and slow.

    From loop_block.nl:14.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.start = nn.ParameterDict(
            {
                "W_layer_y_norm": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_layer_y_norm_bias": nn.Parameter(torch.zeros(heads, dim // heads)),
                "W_layer_y_norm_2": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_layer_y_mlp_1": fast_start(heads, dim // heads + 1, dim // heads),
                "W_layer_y_mlp_2": fast_start(heads, dim // heads + 1, dim // heads + 1),
                "W_layer_y_mlp_3": fast_start(heads, dim // heads, dim // heads + 1),
                "W_layer_gate": fast_start(heads, dim // heads + 1, dim // heads),
                "W_layer_up": fast_start(heads, dim // heads + 1, dim // heads),
                "W_layer_down": fast_start(heads, dim // heads, dim // heads + 1),
                "W_layer_2_y_norm": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_layer_2_y_norm_bias": nn.Parameter(torch.zeros(heads, dim // heads)),
                "W_layer_2_y_norm_2": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_layer_2_y_mlp_1": fast_start(heads, dim // heads + 1, dim // heads),
                "W_layer_2_y_mlp_2": fast_start(heads, dim // heads + 1, dim // heads + 1),
                "W_layer_2_y_mlp_3": fast_start(heads, dim // heads, dim // heads + 1),
                "W_layer_2_gate": fast_start(heads, dim // heads + 1, dim // heads),
                "W_layer_2_up": fast_start(heads, dim // heads + 1, dim // heads),
                "W_layer_2_down": fast_start(heads, dim // heads, dim // heads + 1),
                "W_learned": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_norm": nn.Parameter(torch.ones(heads, dim // heads)),
                "W_norm_bias": nn.Parameter(torch.zeros(heads, dim // heads)),
                "W_linear": fast_start(heads, dim // heads, dim // heads),
                "W_bias": nn.Parameter(torch.zeros(heads, dim // heads)),
            },
        )

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # loop_block.nl:15  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # loop_block.nl:16  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # loop_block.nl:17  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # loop_block.nl:18  rate = 0.1
        rate = torch.full_like(key[..., 0], 0.1)  # [B, H, T]
        start = dict(self.start.items())
        read, core = token_loop(
            query,
            key,
            value,
            rate=rate,
            start=start,
            map={
                "kind": "block",
                "function": self.deep_map,
                "shapes": {n: w.shape[1:] for n, w in start.items()},
            },
            objective="l2",
            rule="gd",
            state=state.get("core"),
        )  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"core": core}

    @staticmethod
    def deep_map(weights: dict[str, Any], x: Tensor) -> Tensor:
        """The block `Deep` with these weights, `x` `[..., d]` of one head."""
        # loop_block.nl:10  inner: x = x + (x |> repeat(2, Layer(dim, wide = dim + 1)) |> unit)
        y = x
        # loop_block.nl:5  y = x |> layernorm |> mlp(wide, 3, residual, norm, silu)
        y_2 = layer_normed(y, 1e-6) * weights["W_layer_y_norm"] + weights["W_layer_y_norm_bias"]
        y_3 = F.silu(
            fast_linear(
                rms_normed(y_2, torch.finfo(y_2.dtype).eps) * weights["W_layer_y_norm_2"],
                weights["W_layer_y_mlp_1"],
            ),
        )
        y_4 = fast_linear(F.silu(fast_linear(y_3, weights["W_layer_y_mlp_2"])), weights["W_layer_y_mlp_3"])
        y_5 = y_2 + y_4
        # loop_block.nl:6  x = y |> swiglu(wide) |> scale(0.5)
        y_6 = fast_linear(
            F.silu(fast_linear(y_5, weights["W_layer_gate"])) * fast_linear(y_5, weights["W_layer_up"]),
            weights["W_layer_down"],
        )
        y = y_6 * 0.5
        y_7 = y
        # loop_block.nl:5  y = x |> layernorm |> mlp(wide, 3, residual, norm, silu)
        y_8 = layer_normed(y_7, 1e-6) * weights["W_layer_2_y_norm"] + weights["W_layer_2_y_norm_bias"]
        y_9 = F.silu(
            fast_linear(
                rms_normed(y_8, torch.finfo(y_8.dtype).eps) * weights["W_layer_2_y_norm_2"],
                weights["W_layer_2_y_mlp_1"],
            ),
        )
        y_10 = fast_linear(
            F.silu(fast_linear(y_9, weights["W_layer_2_y_mlp_2"])), weights["W_layer_2_y_mlp_3"]
        )
        y_11 = y_8 + y_10
        # loop_block.nl:6  x = y |> swiglu(wide) |> scale(0.5)
        y_12 = fast_linear(
            F.silu(fast_linear(y_11, weights["W_layer_2_gate"])) * fast_linear(y_11, weights["W_layer_2_up"]),
            weights["W_layer_2_down"],
        )
        y_7 = y_12 * 0.5
        x = x + F.normalize(y_7, dim=-1, eps=1e-6)
        # loop_block.nl:11  x = x |> learned |> layernorm |> linear(bias)
        x_2 = fast_linear(
            layer_normed(x * weights["W_learned"], 1e-6) * weights["W_norm"] + weights["W_norm_bias"],
            weights["W_linear"],
        )
        x = x_2 + weights["W_bias"]
        return x


class Block(nn.Module):
    """From loop_block.nl:22."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(dim, eps=1e-6)
        self.mixer = Mixer(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # loop_block.nl:23  mixer: x = x + (x |> rmsnorm |> Mixer(dim))
        y, mixer_state = self.mixer(self.mixer_norm(x), state.get("mixer"))
        x = x + y
        return x, {"mixer": mixer_state}


class Small(nn.Module):
    """From loop_block.nl:26."""

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
        # loop_block.nl:27  tokens |> embed(vocab, dim) |> repeat(depth, Block(dim)) |> rmsnorm |> unem...
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
