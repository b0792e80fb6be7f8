"""Ridge memories from the language to the numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nldsl
from nldsl.codegen.plan.engines import choose
from nldsl.diagnostics.model import Source
from tests.engines.compare import assert_same, piecewise, rand

torch.set_num_threads(1)


def text(extra: str = "") -> str:
    return (
        "edition 2026\nmemory Solves(dim, heads = 2) {\n"
        "  key = x |> linear |> unit, value = x |> linear, query = x |> linear\n"
        "  rate = x |> linear(heads) |> sigmoid, retain = x |> linear(heads) |> sigmoid(start = 0.99)\n"
        f"  rule = ridge(0.5){extra}\n}}\n"
        "model M(dim = 8, vocab = 256) { tokens |> embed(vocab, dim) |> Solves(dim) |> unembed(tied) }\n"
    )


def core(extra: str, lowering: Any = "chunked") -> nldsl.Core:
    found = nldsl.core(nldsl.load(Source("solves.nl", text(extra))), lowering)
    assert isinstance(found, nldsl.Core)
    return found


@pytest.mark.parametrize("extra", ["", ", update = every 4 tokens", ", gradient = stop, read = before"])
def test_the_engine_is_the_token_loop(extra: str) -> None:
    fast, slow = core(extra), core(extra, "reference")
    given: dict[str, Any] = {n: rand(2, 2, 9, 4, seed=s) for s, n in enumerate(("query", "key", "value"))}
    given |= {n: rand(2, 2, 9, seed=s, low=0.0) for s, n in enumerate(("rate", "retain"), 7)}
    start = rand(2, 4, 4, seed=9)
    assert_same(fast(**given, start=start), slow(**given, start=start), given | {"start": start})
    pieces = piecewise(fast, given, [3, 4])
    assert_same(pieces, slow(**given), given)
    assert sorted(fast.init_state(2, 2, 4, 4)) == sorted(pieces[1])


def test_a_stated_default_changes_nothing() -> None:
    spec = nldsl.load(Source("solves.nl", text()))
    again = nldsl.load(Source("solves.nl", spec.expand()))
    memories = [instance for s in (spec, again) for instance, _ in s.expanded.instances()]
    first, second = (instance.core for instance in memories)  # type: ignore[union-attr]
    assert first == second
    assert choose(first).engine.function == "ridge"
