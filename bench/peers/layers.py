"""Whole layers of other packages: `[B, T, dim]` to `[B, T, dim]`, with their own projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.peers.outside import version


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of another package.

    Attributes:
        name: the package and its class.
        memory: the memory of the library that it is nearest to.
        package: the distribution on the package index.
        build: makes it for a width and settings of its own; what comes back maps `x` to the result.
    """

    name: str
    memory: str
    package: str
    build: Callable[..., nn.Module]

    @property
    def version(self) -> str | None:
        return version(self.package)


class _First(nn.Module):
    """A module whose first result is wanted."""

    def __init__(self, inner: nn.Module, call: str = "forward") -> None:
        super().__init__()
        self.inner, self._call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.inner, self._call)(x)[0]


class _SelfModifying(nn.Module):
    """A self-modifying layer with its updates on, from the learned start for each sequence."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward_with_updates(x, self.inner.init_fast_state())[0]


def neural_memory(
    dim: int, *, heads: int = 4, chunk: int = 16, depth: int = 2, relinearised: bool = False, **more: Any
) -> nn.Module:
    """titans-pytorch's NeuralMemory.

    Args:
        dim: width of the input.
        heads: memories side by side, of width dim / heads.
        chunk: tokens that share momentum and decay, and one reading of the memory.
        depth: layers of the memory; 1 is a matrix.
        relinearised: take gradients at each chunk's own start, not at the sequence's.
        more: other settings of theirs.
    """
    from titans_pytorch import MemoryMLP, NeuralMemory

    made = NeuralMemory(
        dim=dim,
        dim_head=dim // heads,
        heads=heads,
        chunk_size=chunk,
        batch_size=chunk if relinearised else None,
        model=MemoryMLP(dim // heads, depth=depth, expansion_factor=4.0 if depth > 1 else 1.0),
        **({"qk_rmsnorm": True} | more),
    )
    # Its parameters are views with stride 0, which no optimiser of torch can step (issue 64 there).
    made.memory_model_parameters = nn.ParameterList(
        [nn.Parameter(p.detach().clone()) for p in made.memory_model_parameters]
    )
    return _First(made)


def self_modifying(dim: int, *, chunk: int = 16, **more: Any) -> nn.Module:
    """nested-learning's self-modifying Titans: one head.

    It runs without gradients, so there is no backward pass to time.
    """
    from nested_learning.titan.self_modifying import SelfModifyingTitans, SelfModifyingTitansConfig

    config = SelfModifyingTitansConfig(dim=dim, chunk_size_other=chunk, chunk_size_memory=chunk, **more)
    return _SelfModifying(SelfModifyingTitans(config))


def mamba2(dim: int, *, heads: int = 4, state: int = 64, chunk: int = 64) -> nn.Module:
    """transformers' Mamba2 mixer, on its path without kernels."""
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=dim,
        num_heads=heads,
        head_dim=2 * dim // heads,
        expand=2,
        state_size=state,
        n_groups=1,
        chunk_size=chunk,
        num_hidden_layers=1,
    )
    return Mamba2Mixer(config, layer_idx=0)


def attention(dim: int, *, heads: int = 4) -> nn.Module:
    """torch's own multi-head attention under a causal mask."""

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(
                x.shape[1], device=x.device, dtype=torch.bool
            )
            return self.inner(x, x, x, attn_mask=mask, need_weights=False)[0]

    return Causal()


LAYERS: dict[str, Layer] = {
    layer.name: layer
    for layer in (
        Layer("titans-pytorch NeuralMemory", "Titans", "titans-pytorch", neural_memory),
        Layer("nested-learning SelfModifyingTitans", "SelfModifying", "nested-learning", self_modifying),
        Layer("transformers Mamba2Mixer", "Mamba2", "transformers", mamba2),
        Layer("torch MultiheadAttention", "SoftmaxAttention", "torch", attention),
    )
}
