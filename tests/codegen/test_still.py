"""Levels that never change: `update = never` on every kind of level, as ablations freeze them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.levels.graph import Clock
from nldsl.run.train import train

SPEC = """edition 2026
import [Titans, TTTLinear, Continuum, ContinuumNested] from std

memory Inner(dim) {{
  objective = task
  scope = sequence
  chain sequential {{
    level fast {{ map = mlp(dim), update = every 4 tokens, rate = 0.1 }}
    level slow {{ map = mlp(dim), update = every 8 tokens, rate = 0.1, rule = momentum(0.5) }}
  }}
}}
memory Nest(dim) {{
  objective = task
  scope = sequence
  chain nested {{
    level fast {{ map = mlp(dim), update = every 4 tokens, rate = 0.1 }}
    level slow {{ map = mlp(dim), update = every 8 tokens, rate = 0.1 }}
  }}
}}
memory Pairs(dim) {{
  objective = task
  scope = sequence
  start = learned
  chain sequential {{
    level fast {{
      map = matrix, start = learned, objective = l2
      key = x |> linear |> unit, value = x |> linear, update = every 4 tokens
    }}
    level slow {{
      map = matrix, start = learned, objective = l2
      key = x |> linear |> unit, value = x |> linear, update = every 8 tokens
    }}
  }}
}}
memory Gated(dim) {{
  key = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  start = learned
  strength = x |> linear(1) |> sigmoid
  rate = strength
  retain = 1 - 0.1 * strength
  rule = dgd
  constrain = norm(1)
}}
model Small(dim = 8) {{ tokens |> embed(256, dim) |> {part}(dim) |> rmsnorm |> unembed(tied) }}
train Run {{
  model = Small(dim = 8)
  data  = text("sotu", length = 16, batch = 2)
  steps = 2
  level pretrain {{ learns = rest, rule = adamw(rate = 1e-2) }}
}}
"""


def spec_of(part: str, **changes: str) -> nldsl.Spec:
    return nldsl.load(
        Source("a.nl", SPEC.format(part=part)), set={k.replace("__", "."): v for k, v in changes.items()}
    )


def never(part: str, path: str) -> nldsl.Spec:
    return spec_of(part, **{f"{part}.{path}": "never"})


@pytest.mark.parametrize(
    ("part", "path", "clock"),
    [
        ("TTTLinear", "update", Clock(0, "never")),
        ("Inner", "fast.update", Clock(1, "step")),
        ("Nest", "slow.update", Clock(1, "step")),
        ("ContinuumNested", "slow.update", Clock(0, "never")),
    ],
)
def test_what_stands_still_is_trained_around(part: str, path: str, clock: Clock, tmp_path: Path) -> None:
    spec = never(part, path)
    whole = ".".join(["Small", part, *path.split(".")[:-1]])
    assert {c.clock for c in spec.levels().components if c.path == whole} == {clock}
    spec.compile(tmp_path / "build")
    assert train(tmp_path / "build", device="cpu", out=str(tmp_path / "run"), progress=False) == 0


@pytest.mark.parametrize("part", ["Titans", "Gated", "Pairs", "Inner"])
def test_what_is_never_written_tells_nothing_of_earlier_tokens(part: str, tmp_path: Path) -> None:
    """Beyond the reach of convolutions, what is read depends on the token alone, with any state handed on."""
    paths = ["fast.update", "slow.update"] if part in ("Pairs", "Inner") else ["update"]
    still = spec_of(part, **{f"{part}.{path}": "never" for path in paths})
    for spec, depends in ((spec_of(part), True), (still, False)):
        build = spec.compile(tmp_path / str(depends))
        model = build.model(seed=1)
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(
                    torch.randn(weights.shape, generator=torch.Generator().manual_seed(2)), alpha=0.3
                )
        tokens = torch.randint(256, (1, 24), generator=torch.Generator().manual_seed(3))
        other = tokens.clone()
        other[:, :8] = (other[:, :8] + 101) % 256
        one, two = model(tokens)[0][:, 16:], model(other)[0][:, 16:]
        assert torch.equal(one, two) is not depends


def test_a_level_inside_the_sequence_that_stands_still_is_one_with_rate_zero(tmp_path: Path) -> None:
    frozen = never("Inner", "slow.update").compile(tmp_path / "frozen").model(seed=1)
    idle = (
        spec_of("Inner", **{"Inner.slow.rate": "0", "Inner.slow.rule": "gd"})
        .compile(tmp_path / "idle")
        .model(seed=1)
    )
    idle.load_state_dict(frozen.state_dict())
    tokens = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(frozen(tokens)[0], idle(tokens)[0], rtol=1e-5, atol=1e-6)
    moving = spec_of("Inner").compile(tmp_path / "moving").model(seed=1)
    moving.load_state_dict(frozen.state_dict())
    assert not torch.allclose(frozen(tokens)[0], moving(tokens)[0], rtol=1e-5, atol=1e-6)


def test_an_outer_level_that_stands_still_keeps_its_weights(tmp_path: Path) -> None:
    spec_of("Continuum", pretrain__update="never").compile(tmp_path / "build")
    fresh = (
        nldsl.load(Source("a.nl", SPEC.format(part="Continuum"))).compile(tmp_path / "other").model(seed=0)
    )
    assert train(tmp_path / "build", device="cpu", out=str(tmp_path / "run"), progress=False) == 0
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["weights"]
    start = fresh.state_dict()
    assert kept.keys() == start.keys()
    changed = {name for name in start if not torch.equal(kept[name], start[name])}
    assert changed, "levels of a chain have clocks of their own"
    assert all("continuum" in name for name in changed)


def test_a_memory_that_begins_with_zeros_cannot_stand_still() -> None:
    text = SPEC.format(part="Gated").replace("  start = learned\n  strength", "  strength")
    found = nldsl.check_source(Source("a.nl", text + "variant Still of Run { set Gated.update = never }"))
    assert [d.code for d in found if d.severity == "error"] == ["NL0607"]
    assert "reads nothing but zeros" in next(d.message for d in found if d.code == "NL0607")
