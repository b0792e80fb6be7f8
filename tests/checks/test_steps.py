"""The warning about steps before training: silent on the library, and on what its own advice leads to."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import torch

from nldsl.checks.steps import LIMIT, Steps, steps_at_start
from nldsl.codegen.engines.reference import token_loop
from nldsl.diagnostics.model import Source

from .harness import find
from .test_checks import instance

LIBRARY = sorted(f.name for f in files("nldsl.lib").iterdir() if f.name.endswith(".nl"))
UNIT = "key = x |> linear |> unit\nvalue = x |> linear |> unit\nquery = x |> linear |> unit\n"
ANY = "key = x |> linear\nvalue = x |> linear\nquery = x |> linear\n"


def codes(text: str) -> list[str]:
    return [d.code for d in find(Source("spec.nl", text))]


def steps(fields: str) -> Steps | None:
    return steps_at_start(instance(fields))


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_is_silent(name: str) -> None:
    assert "NL0514" not in codes((files("nldsl.lib") / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("fields", "score"),
    [
        (UNIT + "map = mlp(8)\nrate = 0.1", 0.2),
        (ANY + "map = mlp(8)\nrate = 0.1", 0.8),
        (ANY + "map = mlp(8)\nrate = 0.1\nrule = gd(implicit)", 0.2),
        (UNIT + "map = swiglu(8)\nrate = 0.1", 0.3),
        (UNIT + "map = mlp(8, depth = 3)\nrate = 0.1\nobjective = dot", 0.6),
        (UNIT + "map = mlp(8, depth = 3)\nrate = 0.1\nobjective = dot\nrule = dgd", 0.3),
        (UNIT + "map = mlp(8)\nrate = 0.1\nmomentum = 0.5\nanchor = every 8 tokens", 3.2),
        (UNIT + "map = mlp(8)\nrate = 0.1\nwindow = 4 tokens weighted by (x |> linear(1) |> sigmoid)", 0.4),
        (UNIT + "map = mlp(8)\nrate = 0.1\nobjective = huber(1)", 0.1),
        (UNIT + "rate = 0.1\nobjective = lp(3)", 0.6),
        (ANY + "rate = 0.1\nobjective = lp(3)", 4.8),
    ],
)
def test_a_score_is_the_product_of_what_adds_up(fields: str, score: float) -> None:
    found = steps(fields)
    assert found is not None and found.score == pytest.approx(score)


@pytest.mark.parametrize(
    "fields",
    [
        ANY + "rate = 1",  # of one matrix `steps_that_diverge` speaks
        ANY + "map = mlp(8, norm)\nrate = 1",
        ANY + "map = mlp(8)\nrate = 1\nrule = muon",
        ANY + "map = mlp(8)\nrate = 1\nconstrain = norm",
        ANY + "map = mlp(8)\nrate = 1\nconstrain = softmax every 4 tokens",
    ],
)
def test_nothing_is_said_of_what_is_bounded(fields: str) -> None:
    assert steps(fields) is None


def test_a_sequence_bounds_periods_and_windows() -> None:
    one = instance(UNIT + "map = mlp(8)\nrate = 0.01\nanchor = every 64 tokens")
    whole, short = steps_at_start(one), steps_at_start(one, 16)
    assert whole is not None and short is not None
    assert whole.together == pytest.approx(0.64) and short.together == pytest.approx(0.16)


def test_the_advice_leads_below_the_bound() -> None:
    before = "edition 2026\nmemory M(dim) {\n" + ANY + "map = mlp(8)\nrate = 1\nmomentum = 0.5\n}\n"
    (found,) = find(Source("spec.nl", before))
    assert found.help == "end the key with `|> unit`, and start the rate at 0.2 or less"
    after = before.replace("key = x |> linear", "key = x |> linear |> unit").replace("rate = 1", "rate = 0.2")
    assert codes(after) == []


@pytest.mark.parametrize(("rate", "small"), [(0.05, True), (2.0, False)])
def test_deep_writes_beyond_the_bound_grow_large(rate: float, small: bool) -> None:
    """A drawn memory of two layers under `dot`, well below and well beyond the bound."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tokens, width = 64, 4
    key, value = drawn(1, 1, tokens, width), drawn(1, 1, tokens, width)
    key, value = (x / x.norm(dim=-1, keepdim=True) for x in (key, value))
    fixed: dict[str, Any] = {"map": "mlp", "objective": "dot", "rule": "gd"}
    start = tuple(drawn(1, width, width) / width for _ in range(2))
    out, _ = token_loop(
        query=key, key=key, value=value, rate=torch.full((1, 1, tokens), rate), start=start, **fixed
    )
    assert (rate * 2 * 2 < LIMIT) == small
    assert bool(out.abs().max() < 100) == small
