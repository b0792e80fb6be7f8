"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels import (
    CausalConv,
    attention,
    delta,
    initialise,
    join_streams,
    last_stream,
    merge_heads,
    persistent_tokens,
    rotary,
    split_heads,
    unit,
)

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 12


class Near(nn.Module):
    """Scaled dot-product attention (c.2): one masked softmax over the kept tokens.

    From streams_gate.nl:3.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        position = state.get("position", 0)
        # streams_gate.nl:4  key = x |> linear |> rope
        key = rotary(split_heads(self.key_linear(x), self.heads), position, 10_000)  # [B, H, T, d]
        # streams_gate.nl:5  value = x |> linear
        value = split_heads(self.value_linear(x), self.heads)  # [B, H, T, d]
        # streams_gate.nl:6  query = x |> linear |> rope
        query = rotary(split_heads(self.query_linear(x), self.heads), position, 10_000)  # [B, H, T, d]
        read, core = attention(query, key, value, window=4, sinks=2, state=state.get("core"))
        # streams_gate.nl:8  out = read |> linear
        y = self.out_linear(merge_heads(read))
        return y, {"position": torch.as_tensor(position + x.shape[1]), "core": core}


class Far(nn.Module):
    """Delta tiles (E3): one unit lower-triangular solve a tile, erasing after forgetting.

    From streams_gate.nl:11.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.value_conv = CausalConv(dim, 3)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # streams_gate.nl:12  key = x |> linear |> unit
        key = unit(split_heads(self.key_linear(x), self.heads))  # [B, H, T, d]
        # streams_gate.nl:13  value = x |> linear |> conv(3)
        value, value_conv = self.value_conv(self.value_linear(x), state.get("value_conv"))
        value = split_heads(value, self.heads)  # [B, H, T, d]
        # streams_gate.nl:14  query = x |> linear |> unit
        query = unit(split_heads(self.query_linear(x), self.heads))  # [B, H, T, d]
        # streams_gate.nl:15  rate = x |> linear(heads) |> sigmoid
        rate = torch.sigmoid(self.rate_linear(x)).transpose(1, 2)  # [B, H, T]
        read, core = delta(query, key, value, rate=rate, state=state.get("core"))  # [B, H, T, d]
        y = merge_heads(read)
        return y, {"value_conv": value_conv, "core": core}


class Gate(nn.Module):
    """From streams_gate.nl:18."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, prefix: int) -> None:
        super().__init__()
        self.persistent = persistent_tokens(prefix, dim)
        self.near = Near(dim, heads=2)
        self.far_norm = nn.RMSNorm(dim, eps=1e-6)
        self.far = Far(dim, heads=2)
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.norm_2 = nn.RMSNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        tokens = x.shape[1]
        # streams_gate.nl:19  both = [persistent(prefix), x]
        both = join_streams((x,), state.get("persistent", self.persistent))
        # streams_gate.nl:20  near = both |> Near(dim, sinks = prefix) |> last
        near, near_state = self.near(both, state.get("near"))
        near = last_stream(near, 1, tokens)
        # streams_gate.nl:21  far: y = both |> rmsnorm |> Far(dim) |> last
        y, far_state = self.far(self.far_norm(both), state.get("far"))
        y = last_stream(y, 1, tokens)
        # streams_gate.nl:22  x = (near |> rmsnorm) * (y |> rmsnorm |> sigmoid)
        x = self.norm(near) * torch.sigmoid(self.norm_2(y))
        return x, {"persistent": None, "near": near_state, "far": far_state}


class Layer(nn.Module):
    """From streams_gate.nl:25."""

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, prefix: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        self.persistent = persistent_tokens(prefix, dim)
        self.far = Far(dim, heads=2)
        self.near = Near(dim, heads=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        tokens = x.shape[1]
        # streams_gate.nl:26  x = [persistent(prefix), x |> linear, x] |> Far(dim) |> Near(dim, sinks =...
        stream = self.linear(x)
        y, far_state = self.far(
            join_streams((stream, x), state.get("persistent", self.persistent)), state.get("far")
        )
        y, near_state = self.near(y, state.get("near"))
        x = last_stream(y, 2, tokens)
        return x, {"persistent": None, "far": far_state, "near": near_state}


class Small(nn.Module):
    """From streams_gate.nl:29."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.gate = Gate(config.dim, prefix=2)
        self.layer = Layer(config.dim, prefix=2)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # streams_gate.nl:30  tokens |> embed(vocab, dim) |> Gate(dim) |> Layer(dim) |> rmsnorm |> unem...
        x, gate_state = self.gate(self.embed(tokens), state.get("gate"))
        x, layer_state = self.layer(x, state.get("layer"))
        return self.unembed(self.norm(x)), {"gate": gate_state, "layer": layer_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
