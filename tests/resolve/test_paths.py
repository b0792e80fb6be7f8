"""Paths of parts that the spec itself does not name, and of outer levels as a whole."""

from __future__ import annotations

import pytest

from nldsl.api.reading import linked
from nldsl.api.spec import load, of_module
from nldsl.diagnostics.model import Source, SpecError
from nldsl.document import expr as e
from nldsl.resolve import amend
from nldsl.resolve.expanded import MemoryInstance

HEAD = "edition 2026\n"
RUN = """
model Small(dim = 16) { tokens |> embed(256, dim) |> Layer(dim) |> unembed(tied) }
train Run {
  model = Small(dim = 16)
  data  = text("sotu", length = 32, batch = 2)
  steps = 4
  level pretrain { learns = rest, rule = adamw(rate = 1e-3) }
  level slow { learns = Continuum.slow, rule = gd(rate = 1e-3) }
}
"""
GATE = """
import [MemoryAsGate, Continuum] from std
block Layer(dim) {
  gate: x = x + (x |> MemoryAsGate(dim))
  store: x = x + (x |> Continuum(dim))
}
"""


def test_a_path_begins_at_a_part_that_an_imported_part_uses() -> None:
    spec = load(Source("a.nl", HEAD + GATE + RUN), set={"Titans.rule": "muon", "steps": 3})
    memories = [i for i, _ in spec.expanded.instances() if isinstance(i, MemoryInstance)]
    assert [one.core.rule for one in memories if one.name == "Titans"] == ["muon"]


def test_two_parts_of_one_name_below_a_spec_are_no_path() -> None:
    files = {
        "one.nl": HEAD + "memory A(dim) { key = x, value = x, query = x }\nblock One(dim) { x = A(dim) }",
        "two.nl": HEAD + "memory A(dim) { key = x, value = x, query = x }\nblock Two(dim) { x = A(dim) }",
    }
    text = HEAD + 'import [One] from "one.nl"\nimport [Two] from "two.nl"\n'
    both = linked(Source("a.nl", text), lambda name: Source(name, files[name])).module
    assert both.below("A") is None
    one = linked(Source("a.nl", text.rpartition("import")[0]), lambda name: Source(name, files[name])).module
    assert one.below("A") is not None


def test_what_is_near_is_told_as_a_whole_path() -> None:
    keys = "memory Keys(dim) { key = x |> unit, value = x, query = x }\n"
    spec = load(Source("a.nl", HEAD + GATE + keys + RUN))
    with pytest.raises(SpecError) as raised:
        of_module(spec.module, settings=(amend.amendment("set", "Keys.Key", e.Number(1), None),))
    assert [d.help for d in raised.value.diagnostics] == ["maybe `Keys.key`"]


def test_an_outer_level_is_removed_as_a_whole() -> None:
    spec = load(Source("a.nl", HEAD + GATE + RUN))
    gone = of_module(spec.module, settings=(amend.amendment("remove", "slow", None, None),))
    assert spec.expanded.training is not None and gone.expanded.training is not None
    assert [level.name for level in spec.expanded.training.levels] == ["pretrain", "slow"]
    assert [level.name for level in gone.expanded.training.levels] == ["pretrain"]


def test_an_outer_level_is_not_set_as_a_whole() -> None:
    spec = load(Source("a.nl", HEAD + GATE + RUN))
    with pytest.raises(SpecError) as raised:
        of_module(spec.module, settings=(amend.amendment("set", "slow", e.Number(1), None),))
    assert [d.code for d in raised.value.diagnostics] == ["NL0601"]
