"""A nested chain from its spec to its run, against a loop that is written out here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

import nldsl
from nldsl.run.folder import load

SPEC = """edition 2026
memory Nest(dim) {
  objective = task
  reduce    = HOW
  chain nested {
    level fast { map = mlp(dim, residual), update = every 1 step }
    level middle { map = mlp(dim, residual), update = every 2 steps }
    level slow { map = mlp(dim, residual), update = every 4 steps }
  }
}
block Block(dim) { store: x = x + (x |> rmsnorm |> Nest(dim)) }
model Small(dim = 8) { tokens |> embed(256, dim) |> repeat(2, Block(dim)) |> rmsnorm |> unembed(tied) }
train Run {
  model = Small
  data  = text("words.txt", length = 12, batch = 2)
  steps = 11
  clip  = none
  level all { learns = rest, rule = gd(rate = 0.3) }
}
"""
PERIODS = {"fast": 1, "middle": 2, "slow": 4}
NEXT = {"fast": "middle", "middle": "slow"}
RATE = 0.3


@pytest.fixture
def wide() -> Iterator[None]:
    """New weights are of float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("how", ["mean", "sum", "last"])
def test_a_nested_chain_learns_as_its_equations_say(how: str, tmp_path: Path) -> None:
    """W_s by its own clock, S_s by the next level's, and W_s <- S_s when that has changed."""
    (tmp_path / "words.txt").write_text("what a life adds is a constant\n" * 60, encoding="utf-8")
    (tmp_path / "nest.nl").write_text(SPEC.replace("HOW", how), encoding="utf-8")
    nldsl.load(tmp_path / "nest.nl").compile(tmp_path / "build")
    build = load(tmp_path / "build")
    trainer, by_hand = (build.loop.Trainer(build.settings, torch.device("cpu")) for _ in range(2))
    model = by_hand.model
    levels = {name: _level_of(name) for name, _ in model.named_parameters()}
    starts = {
        name: p.detach().clone() for name, p in model.named_parameters() if levels[name] in NEXT
    }  # S of each weight that has a next level
    gathered = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    of_starts = {name: torch.zeros_like(s) for name, s in starts.items()}
    for step in range(1, 12):
        trainer.train_step()
        inputs, targets = by_hand.course.sampler.draw()
        model.zero_grad()
        cross_entropy(model(inputs)[0].flatten(0, 1), targets.flatten()).backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None
            for sums in (gathered, of_starts):
                if name in sums:
                    sums[name] = weight.grad.clone() if how == "last" else sums[name] + weight.grad
        with torch.no_grad():
            for name, weight in model.named_parameters():
                period = PERIODS.get(levels[name], 1)
                if step % period == 0:
                    weight -= RATE * gathered[name] / (period if how == "mean" else 1)
                    gathered[name].zero_()
            for name, start in starts.items():
                period = PERIODS[NEXT[levels[name]]]
                if step % period == 0:
                    start -= RATE * of_starts[name] / (period if how == "mean" else 1)
                    of_starts[name].zero_()
                    model.get_parameter(name).copy_(start)
        for name, weight in trainer.model.named_parameters():
            other = model.get_parameter(name)
            torch.testing.assert_close(weight, other, rtol=1e-12, atol=1e-13, msg=f"{name} after step {step}")


def _level_of(name: str) -> str:
    return next((level for level in PERIODS if f".{level}." in name), "")
