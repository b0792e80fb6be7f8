"""What chains with weights of each sequence cost over the same chains of plain layers.

A chain of MLPs from features to as many, B2 T1024 dim 256, hidden 512: forward and backward of a model, inner
gradients and updates included.  Its text has eight different tokens, so that nearly all work is the chain's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import nldsl
from bench.timing import Timing, costs, interleaved
from nldsl.run.folder import load

SPEC = """
edition 2026

memory Store(dim) {{
  objective = task
{how}
  chain sequential {{
{levels}
  }}
}}

model Model(dim = {dim}, vocab = 256) {{
  tokens |> embed(vocab, dim) |> rmsnorm |> Store(dim) |> unembed
}}

train Run {{
  model = Model
  data  = text("sotu", length = 1_024, batch = 2)
  steps = 1
  level rest {{ learns = rest, rule = adamw(1e-3), update = every 1 step }}
}}
"""
TOKENS = 8
CHAINS = ((16,), (64,), (256,), (16, 64, 256))
GRADIENTS = ("first_order", "stop", "through")


def spec(periods: tuple[int, ...], gradient: str, dim: int) -> str:
    """A model whose chain has a level for each period; plain layers where `gradient` is empty."""
    clock = "every {} tokens, rate = 1e-4" if gradient else "every 1 step"
    levels = [
        f"    level l{n} {{{{ map = mlp({2 * dim}), update = {clock.format(period)} }}}}"
        for n, period in enumerate(periods)
    ]
    how = f"  scope = sequence\n  gradient = {gradient}" if gradient else ""
    text = SPEC.format(how=how, levels="\n".join(levels), dim=dim)
    return text.replace("{{", "{").replace("}}", "}")


def step(text: str, place: Path, dim: int, batch: int, tokens: int) -> Callable[[], float]:
    """Forward and backward of the compiled model."""
    path = place.with_suffix(".nl")
    path.write_text(text, encoding="utf-8")
    nldsl.load(path).compile(place)
    torch.manual_seed(0)
    model = load(place).model.build()
    model.embed, model.unembed = nn.Embedding(TOKENS, dim), nn.Linear(dim, TOKENS, bias=False)
    given = torch.randint(0, TOKENS, (batch, tokens + 1), generator=torch.Generator().manual_seed(0))

    def run() -> float:
        model.zero_grad(set_to_none=True)
        logits, _ = model(given[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), given[:, 1:].flatten())
        loss.backward()
        return loss.item()

    return run


def timed(
    rounds: int, periods: tuple[int, ...], *, dim: int = 256, batch: int = 2, tokens: int = 1024
) -> dict[str, Timing]:
    """Plain layers, and every way in which the outer gradient flows."""
    with tempfile.TemporaryDirectory() as place:
        variants = {
            gradient or "plain layers": step(
                spec(periods, gradient, dim), Path(place) / (gradient or "plain"), dim, batch, tokens
            )
            for gradient in ("", *GRADIENTS)
        }
        return interleaved(variants, rounds)


def report(rounds: int = 3) -> str:
    """A table for each chain."""
    parts = [__doc__ or ""]
    for periods in CHAINS:
        title = f"every {'/'.join(map(str, periods))} tokens"
        parts.append(costs(title, timed(rounds, periods), "plain layers", {}, ""))
    return "\n".join(parts)
