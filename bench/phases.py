"""What it saves that levels which use the last step's gradient alone ask for none on the others.

Two blocks of softmax attention and a chain of three layers, periods of 1, 4 and 16 steps, B4 T256 dim 256.
A phase is a set of levels that listen: all of them (every sixteenth step), the two faster ones (every fourth)
or the fastest alone.  Under `torch.compile` each phase is a graph of its own.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

import nldsl
from bench.timing import Timing, interleaved, table
from nldsl.run.folder import Build, load

SPEC = """
edition 2026
import [SoftmaxAttention] from std

memory Layers(dim) {{
  objective = task
  chain sequential {{
    level fast   {{ map = mlp(4 * dim, residual, norm), update = every 1 step }}
    level middle {{ map = mlp(4 * dim, residual, norm), update = every 4 steps, reduce = {reduce} }}
    level slow   {{ map = mlp(4 * dim, residual, norm), update = every 16 steps, reduce = {reduce} }}
  }}
}}

block Layer(dim) {{
  mixer: x = x + (x |> rmsnorm |> SoftmaxAttention(dim))
  store: x = x |> Layers(dim)
}}

model Clocked(dim = 256, depth = 2) {{
  tokens |> embed(256, dim) |> repeat(depth, Layer(dim)) |> rmsnorm |> unembed(tied)
}}

train Run {{
  model = Clocked
  data = text("sotu", length = 256, batch = 4)
  steps = 1_000
  level rest {{ learns = rest, rule = adamw(1e-3), update = every 1 step }}
}}
"""
PHASES = {"all levels": (), "fast and middle": ("slow",), "fast alone": ("slow", "middle")}


def _build(place: Path, reduce: str) -> Build:
    path = place / f"{reduce}.nl"
    path.write_text(SPEC.format(reduce=reduce), encoding="utf-8")
    nldsl.load(path).compile(place / reduce)
    return load(place / reduce)


def _sleep(trainer: Any, still: tuple[str, ...]) -> None:
    for name, weight in trainer.model.named_parameters():
        weight.requires_grad_(not any(f".{level}." in name for level in still))


def _pass(trainer: Any, batch: tuple[torch.Tensor, torch.Tensor], still: tuple[str, ...]) -> None:
    """Forward and backward of a phase."""
    _sleep(trainer, still)
    logits, _ = trainer.model(batch[0])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())
    loss.backward()
    trainer.model.zero_grad(set_to_none=True)


def phases(build: Build, rounds: int, *, compiled: bool) -> dict[str, Timing]:
    """Forward and backward of each phase."""
    trainer = build.loop.Trainer(build.settings, torch.device("cpu"))
    if compiled:
        trainer.model.compile()
    batch = trainer.course.sampler.draw()
    runs: dict[str, Callable[[], object]] = {
        name: lambda still=still: _pass(trainer, batch, still) for name, still in PHASES.items()
    }
    return interleaved(runs, rounds)


def steps(builds: dict[str, Build], rounds: int) -> dict[str, Timing]:
    """Sixteen whole steps of the loop, every phase as often as the clocks say."""

    def sixteen(trainer: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in range(16):
                trainer.train_step()

        return run

    trainers = {
        name: build.loop.Trainer(build.settings, torch.device("cpu")) for name, build in builds.items()
    }
    return interleaved({name: sixteen(trainer) for name, trainer in trainers.items()}, rounds)


def _processor_time() -> float:
    """Seconds of this process and of those that it started, which compile for it."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def report(rounds: int = 9, *, compile_too: bool = True) -> str:
    """Three tables, and how long the graphs of the phases took to compile."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{place}/inductor"  # nothing that an earlier run left counts
        builds = {reduce: _build(Path(place), reduce) for reduce in ("mean", "last")}
        made = [
            table(
                "Forward and backward of a phase, eager",
                phases(builds["last"], rounds, compiled=False),
                "all levels",
            )
        ]
        if compile_too:
            begun = _processor_time()
            timings = phases(builds["last"], rounds, compiled=True)
            spent = _processor_time() - begun - sum(one.median for one in timings.values()) * (rounds + 1)
            graphs = counters["stats"]["unique_graphs"]
            note = f"{graphs} graphs, and {spent:.0f} seconds of processor time to compile them."
            made.append(table("Forward and backward of a phase, compiled", timings, "all levels", note))
        named = {"mean: every step's gradient": builds["mean"], "last: the due step's": builds["last"]}
        made.append(table("Sixteen whole steps, eager", steps(named, max(2, rounds // 3)), next(iter(named))))
        return "\n".join(made)
