"""`explain`: the engine of each memory, what it rests on, what it costs, and the way to one."""

from __future__ import annotations

from pathlib import Path

import pytest

import nldsl
from nldsl.api.advice import rests_on, ways
from nldsl.api.planned import default_tile, tile_in
from nldsl.codegen.engines.tiles import tiling
from nldsl.codegen.plan.engines import ENGINES, TOKEN_LOOP, choose
from nldsl.diagnostics.model import Source
from nldsl.resolve.expanded import Core, Map, MemoryInstance

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
STEADY = ("deltanet", "hope", "mamba2", "samba", "titans")


@pytest.mark.parametrize("name", STEADY)
def test_what_is_said(name: str, golden) -> None:
    golden(HERE / "golden" / f"{name}.txt", nldsl.load(ROOT / "specs" / f"{name}.nl").plan())


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.nl")), ids=lambda p: p.stem)
def test_every_memory_of_the_gallery_is_explained(path: Path) -> None:
    spec = nldsl.load(path)
    said = spec.plan()
    for instance, _ in spec.expanded.instances():
        if isinstance(instance, MemoryInstance):
            assert instance.path in said
    assert said.count("\n  engine") == said.count("\n  cost") == said.count("\n  algebra")
    assert max(map(len, said.splitlines())) <= 100


DESCENTS = [
    Core(Map("matrix"), window=4, momentum="head"),
    Core(Map("mlp", residual=True), constrain=(("norm", None, 1),)),
    Core(Map("matrix"), objective="lp", objective_parameter=3.0),
    Core(Map("matrix"), rule="muon"),
    Core(Map("mlp", depth=3, norm=True), momentum="head", retain="head", rate="head"),
    Core(Map("matrix"), gradient="stop", normalise=True, objective="l2"),
]


@pytest.mark.parametrize("core", DESCENTS, ids=str)
def test_the_ways_lead_to_engines(core: Core) -> None:
    if choose(core).engine is not TOKEN_LOOP:
        assert rests_on(core, choose(core).engine)
        return
    found = ways(core)
    assert found
    for way in found:
        assert way.engine is not TOKEN_LOOP
        if len(way.changes) == 1:
            assert choose(way.changes[0].core).engine is way.engine
            assert way.changes[0].core != core


def test_one_field_in_the_way_is_named() -> None:
    (change,) = ways(Core(Map("matrix"), normalise=True))[0].changes
    assert (change.field, change.now) == ("normalise", "`normalise = sum`")
    assert change.instead == "`normalise` left out"


def test_an_engine_rests_on_what_it_asks() -> None:
    core = Core(Map("matrix"), rate="head", retain="head")
    said = rests_on(core, choose(core).engine)
    assert {"`map = matrix`", "`objective = l2`", "an update at every token"} <= set(said)


@pytest.mark.parametrize("period", [1, 2, 7, 16, 24, 96, 128, 131])
@pytest.mark.parametrize("tile", [1, 8, 32, 64])
def test_tiles_are_those_of_the_engines(period: int, tile: int) -> None:
    assert tile_in(period, tile) == tiling(10 * period + 1, tile, period)[0][2]


def test_engines_have_the_tiles_of_their_functions() -> None:
    tiles = {engine.function: default_tile(engine) for engine in ENGINES}
    assert tiles["delta"] is not None
    assert tiles["attention"] is None


SEVERAL = """edition 2026
memory Waiting(dim) {
  writes = 2
  key    = x |> linear(2 * dim) |> unit
  value  = x |> linear(2 * dim)
  query  = x |> linear |> unit
  rate   = 0.01
  %s
}
block Waits(dim) { x = x + (x |> rmsnorm |> Waiting(dim)) }
model Small(dim = 8) { tokens |> embed(11, dim) |> Waits(dim) |> rmsnorm |> unembed(tied) }
"""


@pytest.mark.parametrize(
    "field", ["update = every 8 tokens", "anchor = every 4 tokens", "window = 3 tokens", "target = self"]
)
def test_what_several_writes_do_not_go_with(field: str) -> None:
    found = nldsl.check_source(Source("spec.nl", SEVERAL % field))
    assert "NL0701" in [d.code for d in found]


def test_several_writes_by_themselves_are_well() -> None:
    assert [d.code for d in nldsl.check_source(Source("spec.nl", SEVERAL % "read = before"))] == []


def said(fields: str) -> str:
    """What `explain` says of a memory with these fields."""
    text = (
        SEVERAL.replace("  writes = 2\n", "").replace("linear(2 * dim)", "linear").replace("Waiting", "Told")
    )
    return nldsl.load(Source("spec.nl", text.replace("Waits", "Tells") % fields)).plan()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("rule = ridge(0.5)", ["rule = ridge(0.5)"]),
        ("rule = dgd(first_layer)", ["rule = dgd(first_layer)"]),
        ("objective = huber(0.5)", ["objective = huber(0.5)"]),
        ("anchor = every 4 tokens", ["anchor = every 4 tokens"]),
        ("gradient = through 32 tokens", ["gradient = through 32 tokens"]),
        ("constrain = lq(4) every 8 tokens", ["constrain = lq(4) every 8 tokens"]),
        ("window = 1 token", ["window = 1 token"]),
        ("map = mlp(12, depth = 3, norm)", ["map = mlp(hidden = 12, depth = 3, norm)"]),
    ],
)
def test_the_algebra_is_said_as_the_language_writes_it(fields: str, words: list[str]) -> None:
    text = " ".join(said(fields).split())
    assert all(word in text for word in words)
    assert not any(leak in text for leak in ("objective_parameter", "('", "None", "first_layer,", "strength"))


def test_what_is_solved_has_no_anchor() -> None:
    assert "anchor" not in said("rule = ridge(0.5)")


def test_every_period_of_a_memory_that_writes_its_projections_is_told() -> None:
    fields = (
        "rule = dgd\n  update = every 8 tokens\n  retain = x |> adaptive linear { update = every 4 tokens }"
    )
    text = " ".join(said(fields + " |> linear(1) |> sigmoid").split())
    assert "a period of 4 tokens or 8 tokens" in text
    assert "itself every 8 tokens, its projection of retain every 4 tokens" in text


def test_a_period_is_left_together_with_its_anchor() -> None:
    core = Core(Map("matrix"), rate="channel", erase=True, update=100, anchor=100, read="boundary")
    instead = [change.instead for way in ways(core) for change in way.changes]
    assert "`update` left out and `anchor = retained`" in instead


PROJECTED = """edition 2026
memory Told(dim) {
  key    = x |> %s
  value  = x |> linear
  query  = x |> linear%s
  rate   = 0.01
  %s
}
block Tells(dim) { x = x + (x |> rmsnorm |> Told(dim)) }
model Small(dim = 16) { tokens |> embed(11, dim) |> Tells(dim) |> rmsnorm |> unembed(tied) }
"""


@pytest.mark.parametrize(
    ("key", "query", "field", "code", "words"),
    [
        (
            "linear |> polynomial(2)",
            " |> polynomial(2)",
            "target = self",
            "NL0401",
            "and it takes keys of 153",
        ),
        ("linear", "", "heads = 2\n  writes = 3", "NL0403", "3 writes of 2 heads"),
        ("adaptive linear", "", "heads = 2\n  writes = 3", "NL0403", "do not go with `adaptive`"),
        ("adaptive linear", "", "window = 3 tokens", "NL0701", "for `Told`: `window = 3 tokens` beside"),
        ("adaptive linear", "", "normalise = sum", "NL0701", "for `Told`: `normalise = sum` beside"),
        ("linear", "", "target = self\n  window = 3 tokens", "NL0701", "beside `target = self`"),
    ],
)
def test_what_does_not_go_together_is_named(key: str, query: str, field: str, code: str, words: str) -> None:
    found = nldsl.check_source(Source("spec.nl", PROJECTED % (key, query, field)))
    assert any(d.code == code and words in f"{d.message}; {d.help}" for d in found)
