"""The model `Small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from kernels import MLP, CausalConv, SwiGLU, initialise

State = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of the model."""

    dim: int = 8
    vocab: int = 11


class Maps(nn.Module):
    """Every stage with matrices of its own.

    From maps.nl:4.
    """

    compile_region = True  # `torch.compile` compiles each kind of block once

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.straight_norm = nn.LayerNorm(dim, eps=1e-6)
        self.straight_linear = nn.Linear(dim, hidden, bias=True)
        self.straight_linear_2 = nn.Linear(hidden, dim, bias=False)
        self.deep_norm = nn.RMSNorm(dim, eps=1e-6)
        self.deep_mlp = MLP(dim, hidden, 3, residual=True, norm=True, activation="tanh")
        self.plain_mlp = MLP(dim, 4 * dim)
        self.gated_norm = nn.RMSNorm(dim, eps=1e-6)
        self.gated_swiglu = SwiGLU(dim, 4 * dim)
        self.mixed_conv = CausalConv(dim, 3)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."""
        state = state or {}
        # maps.nl:5  straight: x = x + (x |> layernorm |> linear(hidden, bias) |> silu |> linear(dim))
        y = F.silu(self.straight_linear(self.straight_norm(x)))
        x = x + self.straight_linear_2(y)
        # maps.nl:6  deep: x = x + (x |> rmsnorm |> mlp(hidden, 3, residual, norm, activation = tanh))
        x = x + self.deep_mlp(self.deep_norm(x))
        # maps.nl:7  plain: x = x + (x |> mlp)
        x = x + self.plain_mlp(x)
        # maps.nl:8  gated: x = x + (x |> rmsnorm |> swiglu)
        x = x + self.gated_swiglu(self.gated_norm(x))
        # maps.nl:9  mixed: x = x + (x |> conv(3))
        y, mixed_conv = self.mixed_conv(x, state.get("mixed_conv"))
        x = x + y
        return x, {"mixed_conv": mixed_conv}


class Small(nn.Module):
    """From maps.nl:12."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.maps = Maps(config.dim, hidden=2 * config.dim)
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.unembed = nn.Linear(config.dim, config.vocab, bias=False)
        initialise(self)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`tokens` `[B, T]` and an earlier call's state; gives logits `[B, T, vocab]` and the new state."""
        state = state or {}
        # maps.nl:13  tokens |> embed(vocab, dim) |> Maps(dim) |> rmsnorm |> unembed(vocab)
        x, maps_state = self.maps(self.embed(tokens), state.get("maps"))
        return self.unembed(self.norm(x)), {"maps": maps_state}


def build(config: Config | None = None) -> Small:
    """The model with fresh weights; seed torch before for the same ones again."""
    return Small(config or Config())
