"""Running a memory in two ways and comparing what comes out, forward and backward, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

torch.set_num_threads(1)

Core = Callable[..., tuple[Tensor, dict[str, Tensor]]]


def rand(*shape: int, seed: int, low: float | None = None, high: float = 1.0) -> Tensor:
    """A float64 leaf: normal, or uniform in [low, high]."""
    generator = torch.Generator().manual_seed(seed)
    if low is None:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    drawn = torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low
    return drawn.requires_grad_()


def inputs(
    batch: int,
    heads: int,
    tokens: int,
    dim_k: int,
    dim_v: int,
    *,
    seed: int,
    key_scale: float = 1.0,
    momentum: bool = False,
) -> dict[str, Any]:
    """Queries, keys of norm `key_scale`, values, and gates that include exact zeros and ones."""
    key = torch.nn.functional.normalize(rand(batch, heads, tokens, dim_k, seed=seed), dim=-1) * key_scale
    gates = {"rate": (0.0, 0.9 / key_scale**2), "retain": (0.5, 1.0)} | (
        {"momentum": (0.0, 0.9)} if momentum else {}
    )
    made = {
        "query": rand(batch, heads, tokens, dim_k, seed=seed + 1),
        "key": key.detach().requires_grad_(),
        "value": rand(batch, heads, tokens, dim_v, seed=seed + 2),
    }
    for n, (name, (low, high)) in enumerate(gates.items()):
        gate = rand(batch, heads, tokens, seed=seed + 3 + n, low=low, high=high).detach()
        chance = torch.rand(gate.shape, generator=torch.Generator().manual_seed(seed + 30 + n))
        gate = torch.where(chance < 0.15, torch.zeros_like(gate), gate)
        gate = torch.where((chance > 0.85) & (name != "rate"), torch.ones_like(gate), gate)
        made[name] = gate.requires_grad_()
    return made


def piecewise(
    core: Core, tensors: Mapping[str, Tensor], cuts: Sequence[int], **options: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run `core` on the pieces between `cuts`, carrying the state."""
    tokens = tensors["key"].shape[2]
    edges = [0, *sorted(cuts), tokens]
    state, reads = None, []
    for begin, end in itertools.pairwise(edges):
        piece = {name: tensor[:, :, begin:end] for name, tensor in tensors.items()}
        read, state = core(**piece, state=state, **options)
        reads.append(read)
    assert state is not None
    return torch.cat(reads, dim=2), state


def scalar(read: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """One number that depends on every entry of the read and of the state, unevenly."""
    total = read.new_zeros(())
    for n, tensor in enumerate([read, *(state[name] for name in sorted(state) if name != "phase")]):
        ramp = torch.linspace(0.3, 1.1, max(tensor.numel(), 1), dtype=tensor.dtype)[: tensor.numel()]
        total = total + (n + 1) * (tensor.reshape(-1).sin() * ramp).sum()
    return total


def assert_same(
    first: tuple[Tensor, dict[str, Tensor]],
    second: tuple[Tensor, dict[str, Tensor]],
    leaves: Mapping[str, Tensor],
    *,
    tolerance: float = 1e-9,
) -> None:
    """Read, state and the gradients of all leaves agree to a relative tolerance."""
    _close("read", first[0], second[0], tolerance)
    assert sorted(first[1]) == sorted(second[1])
    for name in first[1]:
        _close(f"state {name}", first[1][name], second[1][name], tolerance)
    grads = [
        torch.autograd.grad(
            scalar(*result),
            list(leaves.values()),
            allow_unused=True,
            materialize_grads=True,
            retain_graph=True,
        )
        for result in (first, second)
    ]
    for name, one, other in zip(leaves, *grads, strict=True):
        _close(f"gradient of {name}", one, other, tolerance)


def _close(what: str, one: Tensor, other: Tensor, tolerance: float) -> None:
    assert one.shape == other.shape, f"{what}: {tuple(one.shape)} against {tuple(other.shape)}"
    if one.numel() == 0:
        return
    assert torch.isfinite(one).all(), f"{what}: not finite"
    error = (one - other).abs().max() / other.abs().max().clamp(min=1.0)
    assert error <= tolerance, f"{what}: relative error {error.item():.2e}"
