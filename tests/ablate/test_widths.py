"""Which numbers of a spec are widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.ablate.widths import Measured, amount_of, sites, structure, widths
from nldsl.api.reading import linked
from nldsl.api.spec import load
from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.levels.build import build
from nldsl.resolve import resolve
from nldsl.resolve.amend import amendment

ROOT = Path(__file__).resolve().parents[2]

PARTS = """edition 2026
memory Part(dim, heads = 2, rank = 4) {
  key   = x |> linear |> conv(4) |> unit
  value = x |> linear(rank) |> linear(dim)
  query = x |> linear |> unit
  rate  = x |> linear(heads) |> sigmoid
  map   = mlp(12, residual)
  start = learned
  out   = read |> scale((dim / heads) ^ (-0.5)) |> linear
}
memory Store(dim, hidden = 24) {
  objective = task
  chain sequential {
    level fast { map = mlp(hidden / 2, residual, norm), update = every 1 step }
    level slow { map = mlp(hidden / 2, residual, norm), update = every 2 steps }
  }
}
block Layer(dim) {
  mixer: x = x + (x |> rmsnorm |> Part(dim))
  wide: x = x + (x |> rmsnorm |> mlp)
  x = x + (x |> rmsnorm |> swiglu(2 * dim))
  store: x = x + (x |> rmsnorm |> Store(dim))
}
model Small(dim = 16, depth = 2, vocab = 256) {
  tokens |> embed(vocab, dim) |> repeat(depth, Layer(dim)) |> rmsnorm |> unembed(tied)
}
train Run {
  model = Small
  data  = text("sotu", tokenizer = bytes, length = 16, batch = 2, split = manifest)
  steps = 4
  level all { learns = rest, rule = adamw(rate = 1e-3) }
}
"""


def measured(text: str = PARTS, what: str = "parameters", **set_: int) -> Measured:
    """What the run of a text costs, at other values of its numbers."""
    settings = [amendment("set", path.replace("__", "."), e.Number(v), None) for path, v in set_.items()]
    return Measured(linked(Source("small.nl", text), None).module, "Run", settings, what)  # type: ignore[arg-type]


def test_widths_are_what_makes_a_spec_larger_and_no_other() -> None:
    found = {one.path: one.value for one in widths(measured())}
    assert found == {
        "Part.map.hidden": 12,
        "Part.rank": 4,
        "Layer.wide.mlp.hidden": 64,  # left out: four times the input
        "Layer.swiglu.hidden": 32,
        "Store.hidden": 24,  # its levels follow
        "model.dim": 16,
    }


def test_those_that_touch_the_fewest_components_come_first() -> None:
    found = widths(measured())
    assert [len(one.touches) for one in found] == sorted(len(one.touches) for one in found)
    assert found[-1].path == "model.dim"
    store = next(one for one in found if one.path == "Store.hidden")
    assert store.touches == {"Layer.store.Store.fast", "Layer.store.Store.slow"}


def test_widths_follow_what_they_are_tied_to() -> None:
    found = {one.path: one.value for one in widths(measured(model__dim=32))}
    assert found["Layer.wide.mlp.hidden"] == 128
    assert found["Layer.swiglu.hidden"] == 64
    assert found["Store.hidden"] == 24


def test_a_bare_parameter_is_no_width_of_its_own() -> None:
    text = PARTS.replace("hidden / 2", "hidden")
    assert {one.path for one in widths(measured(text))} == {one.path for one in widths(measured())}
    tied = {one.path for one in sites(measured(text).resolved({})) if one.tied}
    assert "Store.fast.map.hidden" in tied


def test_what_a_variant_sets_is_not_changed_again() -> None:
    one = amendment("set", "Part.rank", e.Number(8), None)
    many = measured()
    own = Measured(many.module, many.base, [one], "parameters")
    assert "Part.rank" not in {w.path for w in widths(own, [one])}
    assert "Part.rank" in {w.path for w in widths(own)}


def test_a_part_that_was_put_in_place_of_another_may_change_its_widths() -> None:
    call = e.Call(e.Name(("mlp",)), (e.Argument(e.Number(40)),))
    one = amendment("replace", "Layer.store.Store", call, None)
    many = measured()
    own = Measured(many.module, many.base, [one], "parameters")
    assert {w.path: w.value for w in widths(own, [one])}["Layer.store.mlp.hidden"] == 40


def test_weights_of_a_file_have_the_widths_of_the_file() -> None:
    text = PARTS.replace("  steps = 4", '  steps = 4\n  start = pretrained("weights.safetensors")')
    assert measured(text).at({}) is not None
    assert widths(measured(text)) == []


@pytest.mark.parametrize("spec", sorted(p.stem for p in (ROOT / "specs").glob("*.nl")))
def test_no_width_of_a_shipped_spec_is_a_count(spec: str) -> None:
    loaded = load(ROOT / "specs" / f"{spec}.nl", variant="Tiny")
    many = Measured(loaded.module, "Tiny", (), "parameters")
    found = widths(many)
    assert "model.dim" in {one.path for one in found}
    for one in found:
        before, after = many.resolved({}).expanded, many.resolved({one.path: 2 * one.value}).expanded
        assert before is not None
        assert after is not None
        assert structure(before) == structure(after)
        assert amount_of(build(after), "parameters") > amount_of(build(before), "parameters")
        assert before.model is not None
        assert after.model is not None
        assert before.model.vocab == after.model.vocab
        assert [c.copies for c in build(before).components] == [c.copies for c in build(after).components]
        assert before.training == after.training


def test_structure_tells_counts_apart() -> None:
    many = measured()
    base = resolve(many.module, variant="Run").expanded
    assert base is not None
    for path, value in (("model.depth", 3), ("Part.heads", 4), ("Part.key.conv.width", 2), ("Part.rank", 4)):
        other = many.resolved({path: value}).expanded
        assert other is not None
        assert (structure(other) == structure(base)) == (path == "Part.rank")
