"""Engines against the token loop that defines them: forward and backward, float32, B4 H4 T512 D64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.timing import interleaved, table

MEMORIES = ("LinearAttention", "RetNet", "DeltaNet", "GatedDeltaNet", "Titans", "SelfModifying")


def inputs(names: tuple[str, ...], batch: int, heads: int, tokens: int, dim: int) -> dict[str, Tensor]:
    """Random inputs of a core: unit keys and queries, gates where memories start."""
    torch.manual_seed(0)
    made: dict[str, Tensor] = {}
    for name in names:
        if name in ("query", "key", "value"):
            x = torch.randn(batch, heads, tokens, dim)
            made[name] = x if name == "value" else torch.nn.functional.normalize(x, dim=-1)
        elif name == "x":
            made[name] = torch.randn(batch, tokens, heads * dim)
        else:
            low, high = {"rate": (0.05, 0.5), "retain": (0.95, 1.0), "momentum": (0.3, 0.7)}[name]
            made[name] = torch.empty(batch, heads, tokens).uniform_(low, high)
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def step(core: Any, tensors: dict[str, Tensor]) -> Callable[[], object]:
    """One forward and backward pass."""

    def run() -> object:
        read, _ = core(**tensors)
        return torch.autograd.grad(read.square().mean(), list(tensors.values()))

    return run


def report(rounds: int = 3, tokens: int = 512) -> str:
    """One table for each memory of the library that has an engine."""
    import nldsl

    parts = []
    for name in MEMORIES:
        reference, chunked = nldsl.core(name, "reference", dim=256), nldsl.core(name, dim=256)
        tensors = inputs(chunked.inputs, 4, 4, tokens, 64)
        timings = interleaved(
            {"token loop": step(reference, tensors), "engine": step(chunked, tensors)}, rounds
        )
        parts.append(table(f"{name}, T = {tokens}", timings, "token loop", repr(chunked)))
    return "\n".join(parts)


def peak(size: int = 1024) -> str:
    """The machine's own matmul rate on one thread, to read the rest by."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    timing = interleaved({"mm": lambda: a @ b}, 7)["mm"]
    return f"matmul {size} x {size}, float32, one thread: {2 * size**3 / timing.median / 1e9:.0f} GFLOP/s\n"
