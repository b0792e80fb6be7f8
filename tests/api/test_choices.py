"""Choices by a word, and the readings of the self-modifying memory that are made with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import nldsl
from nldsl.diagnostics.model import Source
from nldsl.resolve.expanded import MemoryInstance
from tests.codegen.building import built, gradients, streamed, tokens

ROOT = Path(__file__).resolve().parents[2]
TEXT = """edition 2026
memory Either(dim, kind = plain, start = 0.5) {
  key       = x |> linear |> kind(plain = unit)
  value     = x |> linear
  query     = x |> linear |> kind(gated = silu |> unit, plain = unit)
  rate      = 0.1
  retain    = kind(gated = x |> linear(1) |> sigmoid(start))
  objective = kind(plain = l2, gated = dot)
}
block Block(dim) { x = x + (x |> rmsnorm |> Either(dim%s)) }
model Small(dim = 8) { tokens |> embed(11, dim) |> Block(dim) |> rmsnorm |> unembed(tied) }
"""


def memory(given: str, folder: Path) -> MemoryInstance:
    (folder / "spec.nl").write_text(TEXT % given, encoding="utf-8")
    spec = nldsl.load(folder / "spec.nl")
    return next(i for i, _ in spec.expanded.instances() if isinstance(i, MemoryInstance))


def test_the_word_chooses_fields_and_stages(tmp_path: Path) -> None:
    plain, gated = memory("", tmp_path), memory(", kind = gated", tmp_path)
    assert (plain.core.objective, plain.core.retain) == ("l2", "none")
    assert (gated.core.objective, gated.core.retain) == ("dot", "head")
    assert "primitive='unit'" in repr(plain.flows["key"])
    assert "primitive='unit'" not in repr(gated.flows["key"])


def test_a_word_that_no_choice_knows() -> None:
    found = nldsl.check_source(Source("spec.nl", TEXT % ", kind = plian"))
    assert [(d.code, d.help) for d in found] == [("NL0203", "maybe `plain`")]


def hope(preset: str) -> nldsl.Spec:
    """The smallest model of Hope, in one of its readings."""
    settings = {"model.dim": 16, "model.depth": 1, "SelfModifying.preset": preset}
    return nldsl.load(ROOT / "specs" / "hope.nl", variant="Tiny", set=settings)


@pytest.mark.parametrize("preset", ["equations", "results"])
def test_every_reading_means_the_same_token_by_token(preset: str) -> None:
    spec = hope(preset)
    fast, slow = built(spec), built(spec, "reference")
    slow.load_state_dict(fast.state_dict())
    ids = tokens(fast, 21)
    with torch.no_grad():
        wanted = slow(ids)[0]
        torch.testing.assert_close(fast(ids)[0], wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(streamed(fast, ids, (1, 16, 4))[0], wanted, rtol=1e-9, atol=1e-9)
    found, expected = gradients(fast, ids), gradients(slow, ids)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-8, msg=name)


def test_the_readings_differ_as_they_should() -> None:
    cores = {}
    for preset in ("equations", "results", "stable"):
        instances = (i for i, _ in hope(preset).expanded.instances() if isinstance(i, MemoryInstance))
        one = next(instances)
        cores[preset] = (one.core.objective, one.core.momentum, one.core.target_unit, len(one.adaptives()))
    assert cores == {
        "equations": ("l2", "none", False, 4),
        "results": ("l2", "head", False, 5),
        "stable": ("dot", "none", True, 4),
    }
