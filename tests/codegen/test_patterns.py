"""Which parameters a level learns: every one by exactly one level, and each path its own."""

from __future__ import annotations

from typing import Any

import pytest

import nldsl
from nldsl.codegen.emit import model as model_file
from nldsl.codegen.emit import settings as settings_file
from nldsl.codegen.runtime import schedule
from nldsl.diagnostics.model import Source
from nldsl.levels.outer import assign
from tests.codegen.building import FEATURES, SPECS, feature, gallery, imported

RULE = "rule = adamw(rate = 1e-3), update = every 1 step"
TRAIN = """
train Run {{
  model     = {model}()
  data      = text("sotu", tokenizer = bytes, length = 40, batch = 2, split = manifest)
  objective = next_token
  steps     = 8
  level rest {{ learns = rest, {rule} }}
  {levels}
}}
"""


def _trained(spec: nldsl.Spec, learns: str = "", rule: str = RULE) -> nldsl.Spec:
    """The spec with a run, and a level of its own for `learns`."""
    model = spec.expanded.model
    assert model is not None
    text = spec.source.text + TRAIN.format(
        model=model.name, rule=RULE, levels=f"level own {{ learns = {learns}, {rule} }}" if learns else ""
    )
    return nldsl.load(Source(spec.source.name, text), set={"model.vocab": 256})


def _owners(spec: nldsl.Spec) -> dict[str, list[str]]:
    """The levels that claim each parameter, by the patterns of `settings.py`."""
    model = spec.expanded.model
    assert model is not None
    made = model_file.write(model, "The model.")
    text = settings_file.write(spec.expanded, assign(spec.expanded), made, "The run.")
    scope: dict[str, Any] = {}
    text = text.replace("from schedule import", "from nldsl.codegen.runtime.schedule import")
    exec(compile(text, "settings.py", "exec", dont_inherit=True), scope)
    settings = scope["SETTINGS"]
    parameters = [name for name, _ in imported(spec).build().named_parameters()]
    owners: dict[str, list[str]] = {}
    for name in parameters:
        mine = [
            level.name for level in settings.levels if any(schedule.matches(name, p) for p in level.learns)
        ]
        mine += ["(nobody)"] if any(schedule.matches(name, p) for p in settings.frozen) else []
        owners[name] = mine or [level.name for level in settings.levels if "rest" in level.learns]
    for level in settings.levels:
        for pattern in level.learns:
            assert pattern == "rest" or any(schedule.matches(name, pattern) for name in parameters), pattern
    return owners


def _learns(spec: nldsl.Spec, level: str) -> set[str]:
    return {name for name, owners in _owners(spec).items() if owners == [level]}


@pytest.mark.parametrize("name", FEATURES)
def test_every_parameter_of_a_feature_has_one_level(name: str) -> None:
    assert {n: o for n, o in _owners(_trained(feature(name))).items() if len(o) != 1} == {}


@pytest.mark.parametrize("name", SPECS)
def test_every_parameter_of_a_spec_has_one_level(name: str) -> None:
    assert {n: o for n, o in _owners(gallery(name)).items() if len(o) != 1} == {}


BLOCKS = ("blocks.0", "blocks.1")
FAST = ("0", "1")  # the layers of a learned start

PATHS: dict[str, tuple[str, str, set[str]]] = {
    "a whole memory": (
        "gates_per_token",
        "Mixer",
        {
            f"{b}.mixer.{n}"
            for b in BLOCKS
            for n in (
                "seen_conv.weight",
                "key_linear.weight",
                "value_linear.weight",
                "query_linear.weight",
                "rate_linear.weight",
                "rate_start",
                "retain_linear.weight",
                "retain_start",
            )
        },
    ),
    "projections": (
        "learned_start",
        "Mixer.projections",
        {f"{b}.mixer.{n}_linear.weight" for b in BLOCKS for n in ("key", "value", "query")},
    ),
    "an adaptive projection": (
        "adaptive_descent",
        "Mixer.key.adaptive",
        {f"{b}.mixer.key_memory.{n}" for b in BLOCKS for n in FAST},
    ),
    "a level of a chain": (
        "chain",
        "Continuum.fast",
        {f"{b}.store.fast.{n}.weight" for b in BLOCKS for n in ("norm", "layers.0", "layers.1")},
    ),
    "a line of a block": (
        "chain",
        "Block.store.rmsnorm",
        {f"{b}.store_norm.weight" for b in BLOCKS},
    ),
    "a primitive of a line": (
        "maps",
        "Maps.straight.layernorm",
        {"maps.straight_norm.weight", "maps.straight_norm.bias"},
    ),
    "a label": (
        "maps",
        "Maps.straight",
        {
            "maps.straight_norm.weight",
            "maps.straight_norm.bias",
            "maps.straight_linear.weight",
            "maps.straight_linear.bias",
            "maps.straight_linear_2.weight",
        },
    ),
    "a primitive of the model": ("stateless_blocks", "Small.embed", {"embed.weight"}),
    "one of two instances": (
        "two_instances",
        "Block.right",
        {
            "blocks.0.right_norm.weight",
            *(f"blocks.0.right.{n}_linear.weight" for n in ("key", "value", "query")),
        },
    ),
    "the head": ("maps", "Small.unembed", {"unembed.weight"}),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_its_own_parameters(name: str) -> None:
    source, path, expected = PATHS[name]
    rule = RULE if "chain" not in source or "rmsnorm" in path else "rule = adamw(rate = 1e-3)"
    assert _learns(_trained(feature(source), path, rule), "own") == expected


def test_a_short_name_does_not_take_what_lies_deeper() -> None:
    spec = _trained(feature("nested_blocks"), "Inner.rmsnorm")
    assert all(len(owners) == 1 for owners in _owners(spec).values())
    assert _learns(spec, "own") == {n for n in _owners(spec) if ".norm." in n or ".norm_2." in n}


def test_parts_of_one_repeat_are_told_apart() -> None:
    spec = _trained(feature("several_blocks"), "Reads.mixer.rmsnorm")
    assert _learns(spec, "own") == {f"blocks.{index}.mixer_norm.weight" for index in (0, 2, 3, 5)}
    spec = _trained(feature("several_blocks"), "Thinks")
    assert _learns(spec, "own") == {n for n in _owners(spec) if n.startswith(("blocks.1.", "blocks.4."))}


def test_a_level_of_a_chain_keeps_its_clock() -> None:
    owners = _owners(_trained(feature("chain"), "Continuum.slow", "rule = adamw(rate = 1e-3)"))
    assert {n for n, o in owners.items() if o == ["own"]} == {f"{b}.store.slow.weight" for b in BLOCKS}
