"""Small parts that generated models are made of."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nldsl.codegen.engines.pointwise import causal_conv, unit_vectors


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, T, H * d]` to `[B, H, T, d]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`[B, H, T, d]` to `[B, T, H * d]`."""
    return x.transpose(1, 2).flatten(-2)


def share_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, G, T, d]` to `[B, H, T, d]`: each group serves `H / G` heads that follow one another."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def unit(x: Tensor) -> Tensor:
    """Each vector along the last axis divided by its length."""
    return unit_vectors(x)


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 or better: in bfloat16 a gate of 0.999 would be 1, and its memory would never forget."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def constant_gate(like: Tensor, number: float) -> Tensor:
    """`number` for each entry of `like`, in float32 or better."""
    return torch.full_like(like, number, dtype=torch.promote_types(like.dtype, torch.float32))


def rotary(x: Tensor, position: int | Tensor, theta: float) -> Tensor:
    """Rotary position embedding (RoFormer) of `x` `[B, H, T, d]`.

    The first token stands at `position`.  Features are paired by halves: `(x_i, x_{i + d/2})` turns by
    `position * theta^(-2i/d)`.
    """
    half = x.shape[-1] // 2
    steps = torch.arange(half, device=x.device, dtype=x.dtype)
    places = position + torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)
    angles = places[:, None] * theta ** (-steps / half)
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class CausalConv(nn.Module):
    """A depthwise convolution over the current token and the `reach - 1` before it.

    It begins as the identity, so that a model first learns what each token says.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1, reach))
        with torch.no_grad():
            self.weight[:, :, -1] = 1.0

    def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`x` `[B, T, width]`; `before` holds the `reach - 1` inputs before it, zeros where not given."""
        reach = self.weight.shape[-1]
        padded = x if before is None else torch.cat((before, x), dim=1)
        y = causal_conv(padded, self.weight)[:, padded.shape[1] - x.shape[1] :]
        short = reach - 1 - padded.shape[1]
        last = F.pad(padded, (0, 0, short, 0)) if short > 0 else padded[:, padded.shape[1] - reach + 1 :]
        return y, last


class MLP(nn.Module):
    """Linear maps with an activation between them; `x +` and a norm in front if asked for."""

    def __init__(
        self,
        width: int,
        hidden: int,
        depth: int = 2,
        *,
        residual: bool = False,
        norm: bool = False,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (depth - 1), width]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes))
        self.norm = nn.RMSNorm(width) if norm else None
        self.residual = residual
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[..., width]` to the same shape."""
        y = x if self.norm is None else self.norm(x)
        for index, layer in enumerate(self.layers):
            y = layer(y) if index == 0 else layer(activate(self.activation, y))
        return x + y if self.residual else y


class SwiGLU(nn.Module):
    """A gated feed-forward, `down(silu(gate(x)) * up(x))` (GLU Variants)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[..., width]` to the same shape."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


def activate(name: str, x: Tensor) -> Tensor:
    """The activation called `name`."""
    if name == "gelu":
        return F.gelu(x)
    if name == "silu":
        return F.silu(x)
    return torch.tanh(x) if name == "tanh" else F.relu(x)


def fast_start(heads: int, *shape: int) -> nn.Parameter:
    """A learned start of fast weights, one for each head, drawn so that features keep their size."""
    return nn.Parameter(torch.randn(heads, *shape) / shape[-1] ** 0.5)


def fast_starts(heads: int, *shapes: tuple[int, int]) -> nn.ParameterList:
    """Learned starts of all layers of a deep memory, `[heads, rows, columns]` each.

    Layers after the first begin ten times smaller: what a write adds then grows from little, and a memory
    that learns from its own answers stays bounded.
    """
    starts = [fast_start(heads, *shape) for shape in shapes]
    with torch.no_grad():
        for later in starts[1:]:
            later.mul_(0.1)
    return nn.ParameterList(starts)


def initialise(model: nn.Module) -> None:
    """Draw linear maps with variance 1 / inputs and embeddings with deviation 0.02."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
