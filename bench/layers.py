"""The deep memory with its projections, against titans-pytorch's `NeuralMemory` of the same sizes.

Both have four heads of 64 features, memories of two layers with a hidden width of 256, and linear
projections; theirs is taken with gradients at the sequence's start (its default) and at every chunk's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.models import MODEL, build
from bench.peers import LAYERS, installed
from bench.timing import Timing, interleaved, table

SIZES = ((64, 512), (16, 256))  # tokens of a chunk and of a sequence
MEMORY = """
memory Deep(dim, heads = 4) {{
  key       = x |> linear
  value     = x |> linear
  query     = x |> linear
  rate      = x |> linear(heads) |> sigmoid(start = 0.5) |> scale(0.02)
  retain    = x |> linear(heads) |> sigmoid(start = 0.999)
  momentum  = x |> linear(heads) |> sigmoid(start = 0.6) |> scale(0.9)
  map       = mlp(dim, residual)
  objective = l2
  anchor    = every {chunk} tokens
{update}  start     = learned
  out       = read |> rmsnorm |> linear
}}
"""


def ours(place: Path, chunk: int, length: int, update: str) -> nn.Module:
    """The memory's module, taken out of a model of one layer."""
    text = MODEL.format(
        library="SoftmaxAttention",
        memory=MEMORY.format(chunk=chunk, update=update),
        mixer="Deep(dim)",
        ffn="mlp(dim)",
        dim=256,
        depth=1,
        length=length,
    )
    model = build(place, text)
    return next(module for module in model.modules() if type(module).__name__ == "Deep")


def step(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """One forward and backward pass, to the parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def run() -> object:
        found: Any = module(x)
        read = found[0] if isinstance(found, tuple) else found
        return torch.autograd.grad(read.square().mean(), parameters, allow_unused=True)

    return run


def timings(rounds: int, chunk: int, length: int) -> dict[str, Timing]:
    """A pass of each module, in turns; the first two are theirs."""
    layer = LAYERS["titans-pytorch NeuralMemory"]
    torch.manual_seed(0)
    x = torch.randn(2, length, 256)
    at_boundary = f"  update    = every {chunk} tokens\n"
    with tempfile.TemporaryDirectory() as place:
        modules = {
            "titans-pytorch, every chunk": layer.build(256, chunk=chunk, relinearised=True),
            "titans-pytorch, at the start": layer.build(256, chunk=chunk),
            "nldsl, reads of every token": ours(Path(place) / "a", chunk, length, ""),
            "nldsl, reads at the boundary": ours(Path(place) / "b", chunk, length, at_boundary),
        }
        return interleaved({name: step(module, x) for name, module in modules.items()}, rounds)


def report(rounds: int = 5) -> str:
    """Chunks of 64 and of 16 tokens."""
    if not installed("titans-pytorch"):
        return "titans-pytorch is not installed: `make peers`.\n"
    version = LAYERS["titans-pytorch NeuralMemory"].version
    parts = []
    for chunk, length in SIZES:
        title = f"Deep memory, d 256, B 2, T {length}, chunk {chunk} (titans-pytorch {version})"
        parts.append(table(title, timings(rounds, chunk, length), "titans-pytorch, every chunk"))
    return "\n".join(parts)
