"""What pages hold from the code is fresh, and names what there is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import nldsl
from nldsl.codegen.plan.engines import ENGINES, TOKEN_LOOP, choose
from nldsl.resolve.data import DATA_ARGUMENTS
from nldsl.resolve.expanded import Core, Map
from nldsl.resolve.fields import FIELDS
from nldsl.resolve.training import TRAIN_FIELDS
from nldsl.syntax.elaborate import DECLARATIONS

from .blocks import ROOT, Block

SCRIPT = ROOT / "scripts" / "make_docs.py"
LANGUAGE = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_tables_are_fresh() -> None:
    script = load(SCRIPT)
    found = script.pages()
    assert {p.name for p in found} >= {"language.md", "engines.md"}
    stale = [
        p.name for p in found if script.made(p.read_text(encoding="utf-8")) != p.read_text(encoding="utf-8")
    ]
    assert stale == [], "run: python scripts/make_docs.py"


@pytest.mark.parametrize("name", [*DECLARATIONS, *FIELDS, *TRAIN_FIELDS, *DATA_ARGUMENTS])
def test_the_reference_names_every_declaration_and_field(name: str) -> None:
    assert f"`{name}" in LANGUAGE or f"{name}," in LANGUAGE or f"{name})" in LANGUAGE


PAIRS = "key = x, value = x, query = x, rate = 0.01"
REFUSED = [
    f"{PAIRS}, start = copy of pretrain",
    f'{PAIRS}, start = pretrained("weights", a)',
    f"{PAIRS}, reset = never",
    f"{PAIRS}, update = every 16 tokens offset 2 tokens",
    f"{PAIRS}, update = every 16 tokens flush",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_said_to_be_refused_is(text: str) -> None:
    block = Block("refused", 1, False, "memory", f"memory Own(dim) {{ {text} }}\n")
    assert "NL0701" in [d.code for d in nldsl.check_source(block.source)]


@pytest.mark.parametrize(
    ("text", "code"), [("objective = distil\n", "NL0701"), ('data = images("cats")\n', "NL0702")]
)
def test_runs_that_are_said_to_be_refused_are(text: str, code: str) -> None:
    assert [d.code for d in nldsl.check_source(Block("refused", 1, False, "run", text).source)] == [code]


MLP = Map("mlp", residual=True)
LOOPED = [
    Core(Map("matrix"), window=4, momentum="head"),
    Core(Map("matrix"), window=4, objective="dot"),
    Core(Map("mlp"), window=4, anchor="current"),
    Core(Map("mlp", depth=3), anchor="current"),
    Core(Map("matrix"), constrain=(("norm", None, 1),)),
    Core(Map("matrix"), retain="channel", momentum="head"),
    Core(Map("matrix"), retain="channel", window=4),
    Core(Map("matrix"), retain="channel", rule="dgd"),
    Core(Map("matrix"), retain="channel", objective="huber", anchor=8),
    Core(Map("vector"), retain="channel", anchor=8),
    Core(Map("matrix"), retain="channel", anchor=8, update=4),
    Core(Map("matrix"), erase=True, anchor=8),
    *[Core(Map("matrix"), objective=objective) for objective in ("lp", "huber")],
    Core(Map("matrix"), rule="muon"),
    *[Core(Map(kind)) for kind in ("vector", "swiglu")],
    Core(MLP),
]


@pytest.mark.parametrize("core", LOOPED, ids=str)
def test_what_no_engine_is_said_to_do_is_looped(core: Core) -> None:
    assert choose(core).engine is TOKEN_LOOP


def test_each_engine_has_its_section() -> None:
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").lower()
    for engine in ENGINES:
        assert engine.name.split(",")[0].lower() in page.split("## what no engine")[1], engine.name
