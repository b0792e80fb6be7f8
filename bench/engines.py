"""Engines against the token loop that defines them, and against other people's code where it is installed.

Forward and backward, float32, B4 H4 D64 by default.  A peer's own inputs are made outside of the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.peers import PEERS, installed
from bench.timing import interleaved, table

MEMORIES: dict[str, tuple[str, ...]] = {
    "LinearAttention": (),
    "RetNet": ("fla naive_chunk_simple_gla",),
    "DeltaNet": ("fla delta_rule_chunkwise",),
    "GatedDeltaNet": ("fla naive_chunk_gated_delta_rule", "transformers torch_chunk_gated_delta_rule"),
    "MomentumDelta": (),
    "GLA": ("fla naive_recurrent_gla",),
    "KDA": ("fla naive_chunk_kda",),
    "RWKV7": ("fla dplr_chunkwise",),
    "Titans": (),
    "SelfModifying": (),
}
RANGES = {"rate": (0.05, 0.5), "retain": (0.95, 1.0), "momentum": (0.3, 0.7)}
Tensors = dict[str, Tensor]


def inputs(core: Any, batch: int, heads: int, tokens: int, dim: int) -> Tensors:
    """Random inputs of a core: unit keys and queries, gates where memories start."""
    torch.manual_seed(0)
    made: Tensors = {}
    for name in core.inputs:
        if name == "x":
            made[name] = torch.randn(batch, tokens, heads * dim)
        elif name in RANGES:
            channels = (dim,) if getattr(core.memory.core, name) == "channel" else ()
            made[name] = torch.empty(batch, heads, tokens, *channels).uniform_(*RANGES[name])
        else:
            x = torch.randn(batch, heads, tokens, dim)
            made[name] = x if name == "value" else torch.nn.functional.normalize(x, dim=-1)
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def step(run: Callable[..., Any], tensors: Tensors) -> Callable[[], object]:
    """One forward and backward pass."""

    def once() -> object:
        read = run(**tensors)[0]
        return torch.autograd.grad(read.square().mean(), list(tensors.values()))

    return once


def _inside(core: Any) -> Callable[..., Any]:
    """What a build calls: the engine's function, without the checks of its inputs that a core makes."""
    if not hasattr(core, "_run"):
        return core
    return lambda **tensors: core._run(tensors, None, None)


def variants(
    name: str, tokens: int, *, loop: bool = True, compile_too: bool = False
) -> dict[str, Callable[[], object]]:
    """The token loop, the engine, and the peers that are installed, on the same numbers."""
    import nldsl

    chunked = nldsl.core(name, dim=256)
    tensors = inputs(chunked, 4, 4, tokens, 64)
    found = {"token loop": step(_inside(nldsl.core(name, "reference", dim=256)), tensors)} if loop else {}
    ours = f"nldsl: {getattr(chunked, 'engine', 'engine')}"
    found[ours] = step(_inside(chunked), tensors)
    if compile_too:
        found[f"{ours}, compiled"] = step(torch.compile(_inside(chunked), dynamic=False), tensors)
    for peer in (PEERS[one] for one in MEMORIES.get(name, ()) if installed(PEERS[one].package)):
        native = peer.prepare(tensors)
        found[f"{peer.name} ({peer.version})"] = step(peer.run, native)
        if compile_too:
            fast = torch.compile(peer.run, dynamic=False)
            found[f"{peer.name} ({peer.version}), compiled"] = step(fast, native)
    return found


def report(
    rounds: int = 3,
    tokens: int = 512,
    names: tuple[str, ...] = tuple(MEMORIES),
    *,
    compile_too: bool = False,
) -> str:
    """One table for each memory."""
    parts = []
    for name in names:
        timings = interleaved(variants(name, tokens, compile_too=compile_too), rounds)
        parts.append(table(f"{name}, B4 H4 D64, T = {tokens}", timings, "token loop"))
    return "\n".join(parts)


def long(rounds: int = 5, tokens: int = 2048) -> str:
    """Gated DeltaNet on long sequences, without the token loop."""
    timings = interleaved(variants("GatedDeltaNet", tokens, loop=False), rounds)
    return table(f"GatedDeltaNet, B4 H4 D64, T = {tokens}", timings, next(iter(timings)))


def peak(size: int = 1024) -> str:
    """The machine's own matmul rate on one thread, to read the rest by."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    few, many = torch.randn(128, 64, 64), torch.randn(128, 64, 64)
    timings = interleaved({"mm": lambda: a @ b, "bmm": lambda: few @ many}, 9)
    one, batch = (2 * n / timings[k].least / 1e9 for k, n in (("mm", size**3), ("bmm", 128 * 64**3)))
    return (
        f"One thread, float32: matmul {size} x {size} {one:.0f} GFLOP/s, 128 products of 64 x 64 {batch:.0f} "
        f"GFLOP/s; torch {torch.__version__}.\n"
    )
