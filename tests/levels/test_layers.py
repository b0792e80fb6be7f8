"""Three layers of memory: the report, against a golden file and against the level graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import nldsl
from nldsl.levels.draw.words import columns
from nldsl.levels.layers import HOLDS, as_data, as_text, held

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


def _spec(name: str) -> nldsl.Spec:
    return nldsl.load(ROOT / "specs" / f"{name}.nl", variant="Tiny")


def test_three_memories(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "three_memories.memory.txt", _spec("three_memories").memory())


@pytest.mark.parametrize("name", ["hope", "hope_attention", "titans_mac", "transformer", "three_memories"])
def test_every_number_has_its_layer(name: str) -> None:
    spec = _spec(name)
    graph, parts = spec.levels(), held(spec.expanded, spec.levels())
    weights = [one for one in parts if one.layer == "weights"]
    rules = {part.path for part in graph.components if part.kind == "optimizer"}
    learned = sum(one.numbers * one.copies for one in weights if one.path not in rules)
    assert learned == graph.parameters
    own = sum(one.bytes * one.copies for one in parts if one.layer != "weights")
    assert own == sum(part.state_bytes * part.copies for part in graph.components if part.per_sequence)
    assert {one.path for one in parts if not one.path.endswith("(start)")} == {
        p.path for p in graph.components
    }


@pytest.mark.parametrize("name", ["hope", "three_memories"])
def test_the_report_keeps_to_its_width_and_names_all(name: str) -> None:
    spec = _spec(name)
    for width in (80, 100):
        text = as_text(spec.expanded, spec.levels(), width=width)
        assert max(map(columns, text.splitlines())) <= width
        assert all(f"\n{layer}: {holds}\n" in text for layer, holds in HOLDS.items())


def test_the_layers_of_the_example_are_told_apart() -> None:
    spec = _spec("three_memories")
    found = {one["path"]: one for one in as_data(spec.expanded, spec.levels())}
    slow = found["ThreeBlock.weights.Knowledge.slow"]
    assert (slow["layer"], slow["changes"]) == ("weights", "every 16 steps (2,048 tokens)")
    assert slow["at_test_time"] == "goes on learning, in a copy for each stream"
    middle = found["ThreeBlock.weights.Knowledge.middle"]
    assert (middle["layer"], middle["at_test_time"]) == ("weights", "stands still")
    cache = found["ThreeBlock.cache.Cache"]
    assert (cache["layer"], cache["changes"], cache["lives"]) == (
        "cache",
        "every 16 tokens",
        "for one sequence",
    )
    context = found["ThreeBlock.context.SoftmaxAttention"]
    assert (context["layer"], context["lives"]) == ("context", "for 64 tokens")
    assert json.loads(json.dumps(found)) == found


def test_builds_say_the_same(tmp_path: Path) -> None:
    spec = _spec("three_memories")
    spec.compile(tmp_path / "build")
    written = json.loads((tmp_path / "build" / "levels.json").read_text(encoding="utf-8"))
    assert written["layers"] == as_data(spec.expanded, spec.levels())
