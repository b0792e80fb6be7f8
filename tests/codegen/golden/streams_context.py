"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import (
    CausalConv,
    attention,
    by_segments,
    constant_gate,
    fast_starts,
    frozen,
    initialise,
    join_streams,
    last_stream,
    merge_heads,
    persistent_tokens,
    recall,
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


class Deep(nn.Module):
    """Factored frozen gradient (E6), read and written apart.

    From streams_context.nl:5.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = hidden
        self.start = fast_starts(heads, (hidden, dim // heads), (dim // heads, hidden))
        self.key_linear = nn.Linear(dim, dim, bias=False)
        self.key_conv = CausalConv(dim, 3)
        self.value_linear = nn.Linear(dim, dim, bias=False)
        self.rate_linear = nn.Linear(dim, heads, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.query_conv = CausalConv(dim, 3)
        self.out_norm = nn.RMSNorm(dim // heads, eps=1e-6)
        self.out_linear = nn.Linear(dim, dim, bias=False)

    def write(self, x: Tensor, state: State | None = None) -> tuple[State, State]:
        """What is written for `x` `[B, T, d]`: keys, values and gates; and the new state of this side."""
        state = state or {}
        # streams_context.nl:6  key = x |> linear |> conv(3) |> unit
        key, key_conv = self.key_conv(self.key_linear(x), state.get("key_conv"))
        key = unit(split_heads(key, self.heads))  # [B, H, T, d]
        # streams_context.nl:7  value = x |> linear |> unit
        value = unit(split_heads(self.value_linear(x), self.heads))  # [B, H, T, d]
        # streams_context.nl:9  rate = x |> linear(heads) |> sigmoid |> scale(0.1)
        rate = (torch.sigmoid(self.rate_linear(x)) * 0.1).transpose(1, 2)  # [B, H, T]
        # streams_context.nl:10  momentum = 0.5
        momentum = constant_gate(key[..., 0], 0.5)  # [B, H, T]
        pairs = {"key": key, "value": value, "rate": rate, "momentum": momentum}
        return pairs, {"key_conv": key_conv}

    def recall(self, x: Tensor, core: State | None, state: State | None = None) -> tuple[Tensor, State]:
        """What the memory answers to `x` `[B, T, d]` as it is in `core`; and the new state of this side."""
        state = state or {}
        # streams_context.nl:8  query = x |> linear |> conv(3) |> unit
        query, query_conv = self.query_conv(self.query_linear(x), state.get("query_conv"))
        query = unit(split_heads(query, self.heads))  # [B, H, T, d]
        read = recall(
            query,
            core,
            tuple(self.start),
            map={
                "kind": "mlp",
                "hidden": self.hidden,
                "depth": 2,
                "residual": True,
                "norm": False,
                "activation": "gelu",
            },
        )  # [B, H, T, d]
        # streams_context.nl:13  out = (read |> rmsnorm) * (x |> linear |> silu)
        y = merge_heads(self.out_norm(read)) * F.silu(self.out_linear(x))
        return y, {"query_conv": query_conv}

    def read(
        self, x: Tensor, pairs: State, core: State | None, state: State | None = None
    ) -> tuple[Tensor, State, State]:
        """What the memory answers to `x` `[B, T, d]` while `pairs` of the same tokens are written; the
        memory after them; and the new state of this side.
        """
        state = state or {}
        # streams_context.nl:8  query = x |> linear |> conv(3) |> unit
        query, query_conv = self.query_conv(self.query_linear(x), state.get("query_conv"))
        query = unit(split_heads(query, self.heads))  # [B, H, T, d]
        read, core = frozen(
            query,
            **pairs,
            start=tuple(self.start),
            map="mlp",
            period=4,
            objective="l2",
            residual=True,
            activation="gelu",
            read="after",
            state=core,
        )  # [B, H, T, d]
        # streams_context.nl:13  out = (read |> rmsnorm) * (x |> linear |> silu)
        y = merge_heads(self.out_norm(read)) * F.silu(self.out_linear(x))
        return y, core, {"query_conv": query_conv}


class SoftmaxAttention(nn.Module):
    """Softmax attention: a memory that keeps every key and value, and reads by a weighted
    average of values, y_t = sum_i softmax_i(k_i . q_t) v_i (Nested Learning, Eq. 62-63). Its state
    is a cache, so its frequency is infinite. `window` keeps the last tokens only (sliding-window
    attention), and `sinks` the first ones beside it; with fewer `groups` than heads, several heads share
    keys and values (grouped queries).

    Scaled dot-product attention (c.2): one masked softmax over the kept tokens.
    From SoftmaxAttention.nl:8.
    """

    def __init__(self, dim: int, heads: int, theta: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.theta = theta
        self.heads = heads
        self.query_scale = (dim / heads) ** -0.5
        self.key_linear = nn.Linear(dim, groups * dim // heads, bias=False)
        self.value_linear = nn.Linear(dim, groups * dim // heads, bias=False)
        self.query_linear = nn.Linear(dim, dim, bias=False)
        self.out_linear = nn.Linear(
            groups * dim // heads // groups * heads, groups * dim // heads // groups * heads, bias=False
        )

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        position = state.get("position", 0)
        # SoftmaxAttention.nl:9  key = x |> linear(groups * dim / heads) |> grouped(groups) |> rope(theta)
        key = rotary(split_heads(self.key_linear(x), self.groups), position, self.theta)  # [B, H, T, d]
        # SoftmaxAttention.nl:10  value = x |> linear(groups * dim / heads) |> grouped(groups)
        value = split_heads(self.value_linear(x), self.groups)  # [B, H, T, d]
        # SoftmaxAttention.nl:11  query = x |> linear |> rope(theta) |> scale((dim / heads) ^ (-0.5))
        query = rotary(split_heads(self.query_linear(x), self.heads), position, self.theta)
        query = query * self.query_scale  # [B, H, T, d]
        read, core = attention(query, key, value, state=state.get("core"))
        # SoftmaxAttention.nl:14  out = read |> linear
        y = self.out_linear(merge_heads(read))
        return y, {"position": torch.as_tensor(position + x.shape[1]), "core": core}


class Context(nn.Module):
    """Recalled tokens, persistent ones and the segment's own, read side by side.

    From streams_context.nl:17.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, segment: int, prefix: int) -> None:
        super().__init__()
        self.segment_length = segment
        self.m = Deep(dim, heads=2, hidden=dim // 2)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.persistent = persistent_tokens(prefix, dim)
        self.softmax_attention = SoftmaxAttention(dim, heads=2, theta=10_000, groups=2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # streams_context.nl:19  segments(segment) { recalled = m.read(x |> linear) context = [persiste...
        x, segments = by_segments(self.run_segment, (x,), self.segment_length, state.get("segments"))
        return x, {"segments": segments}

    def run_segment(self, x: Tensor, state: State, carried: State) -> tuple[Tensor, State, State]:
        """A segment, or a piece of one: `state` begins anew with each, `carried` goes on."""
        tokens = x.shape[1]
        # streams_context.nl:20  recalled = m.read(x |> linear)
        m_before = state.get("m_before", carried.get("m"))
        recalled, m_recall = self.m.recall(self.linear(x), m_before, carried.get("m_recall"))
        # streams_context.nl:21  context = [persistent(prefix), recalled, x] |> SoftmaxAttention(dim, h...
        context, softmax_attention_state = self.softmax_attention(
            join_streams((recalled, x), state.get("persistent", self.persistent)),
            state.get("softmax_attention"),
        )
        # streams_context.nl:22  y = context |> last(segment)
        y = last_stream(context, 2, tokens)
        # streams_context.nl:23  m.write(y)
        m_pairs, m_write = self.m.write(y, carried.get("m_write"))
        # streams_context.nl:24  x = y * (m.read(y) |> sigmoid)
        x, m, m_read = self.m.read(y, m_pairs, carried.get("m"), carried.get("m_read"))
        x = y * torch.sigmoid(x)
        state = {"m_before": m_before, "persistent": None, "softmax_attention": softmax_attention_state}
        carried = {"m_recall": m_recall, "m_write": m_write, "m": m, "m_read": m_read}
        return x, state, carried


class Small(nn.Module):
    """From streams_context.nl:28."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.context = Context(config.dim, segment=8, prefix=3)
        self.norm = nn.RMSNorm(8, eps=1e-6)
        self.unembed = nn.Linear(8, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # streams_context.nl:29  tokens |> embed(vocab, dim) |> Context(dim) |> rmsnorm |> unembed(vocab)
        x, context_state = self.context(self.embed(tokens), state.get("context"))
        return self.unembed(self.norm(x)), {"context": context_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
