"""Reading specs from Python: files, settings, imports, and how each can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import nldsl
from nldsl.api import PASSES
from nldsl.diagnostics.model import SpecError
from nldsl.syntax import parse, parser_tables

ROOT = Path(__file__).resolve().parents[2]
DELTA = ROOT / "specs" / "deltanet.nl"


def codes(found: object) -> list[str]:
    return [d.code for d in found]  # type: ignore[attr-defined]


def test_a_spec_shows_itself() -> None:
    spec = nldsl.load(DELTA, variant="Tiny")
    assert spec.name == "DeltaOnText-Tiny" or spec.name == "Tiny"
    assert spec.variants == ["Tiny"]
    assert spec.expanded.training is not None
    assert spec.levels().parameters > 0
    assert "delta tiles (E3)" in spec.plan()
    assert spec._repr_html_().startswith("<svg")
    assert repr(spec).startswith(f"<Spec {spec.name} of ")
    for stage in PASSES:
        assert spec.print_after(stage)
    with pytest.raises(ValueError, match="there is no stage `parse`"):
        spec.print_after("parse")


def test_settings_of_every_kind() -> None:
    spec = nldsl.load(
        DELTA,
        set={
            "model.dim": 64,
            "train.steps": "2 * 50",
            "compile": True,
            "DeltaNet.rate": "x |> linear(heads) |> softplus",
        },
    )
    assert spec.expanded.training is not None
    assert (spec.expanded.training.steps, spec.expanded.training.compile) == (100, True)
    assert [a.path for a in spec.settings] == ["model.dim", "train.steps", "compile", "DeltaNet.rate"]
    assert nldsl.load(DELTA, set=["steps=7"]).expanded.training.steps == 7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("model.dimm", 3, "NL0601"),
        ("model.dim", "3 +", "NL0106"),
        ("model.dim", "3, x = 4", "NL0107"),
        ("no such", 1, "NL0601"),
        ("steps", 2.5, "NL0205"),
        ("steps", "3 tokens", "NL0303"),
    ],
)
def test_a_wrong_setting_is_a_finding_in_it(path: str, value: object, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.load(DELTA, set={path: value})
    found = [d for d in caught.value.diagnostics if d.severity == "error"]
    assert codes(found) == [code]
    assert found[0].span is not None
    assert found[0].span.source.name == f"--set {path}"


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="not of the form `path=value`"):
        nldsl.load(DELTA, set=["steps"])
    with pytest.raises(TypeError, match="the value of `steps` is a `list`"):
        nldsl.load(DELTA, set={"steps": [1]})


def test_a_missing_file_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "hope.nl").write_text("edition 2026")
    with pytest.raises(FileNotFoundError, match=r"does not exist; did you mean .*hope\.nl"):
        nldsl.load(tmp_path / "hop.nl")
    (tmp_path / "bad.nl").write_bytes(b"caf\xe9")
    with pytest.raises(OSError, match="is not UTF-8"):
        nldsl.check(tmp_path / "bad.nl")


def test_unknown_variants_are_findings() -> None:
    with pytest.raises(SpecError) as caught:
        nldsl.load(DELTA, variant="Tinny")
    assert codes(caught.value.diagnostics) == ["NL0602"]
    assert caught.value.diagnostics[0].help == "maybe `Tiny`"


def test_imports_stay_below_the_folder(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (inside / "parts").mkdir(parents=True)
    outside.mkdir()
    memory = "edition 2026\nmemory A(dim) { key = x |> unit, value = x, query = x |> unit }\n"
    (outside / "secret.nl").write_text(memory)
    (inside / "parts" / "a.nl").write_text(memory)
    (inside / "link.nl").symlink_to(outside / "secret.nl")
    for target, wanted in {
        "parts/a.nl": [],
        "link.nl": ["NL0011"],
        "../outside/secret.nl": ["NL0012"],
        "none.nl": ["NL0011"],
    }.items():
        (inside / "main.nl").write_text(
            f'edition 2026\nimport [A] from "{target}"\nblock B(dim) {{ x = x + (x |> A(dim)) }}\n'
        )
        assert [d.code for d in nldsl.check(inside / "main.nl") if d.code.startswith("NL00")] == wanted, (
            target
        )


def test_check_finds_what_only_a_variant_has() -> None:
    text = DELTA.read_text() + "variant Odd of DeltaOnText { set model.dim = 66 }\n"
    source = nldsl.Source("delta.nl", text)
    assert codes(nldsl.check(source)) == ["NL0607"]
    assert "NL0403" in codes(nldsl.check(source, variant="Odd"))
    both = nldsl.check(source, variant="all")
    assert {d.code for d in both} >= {"NL0403", "NL0607"}
    assert nldsl.check(source, variant="Tiny") == []


def test_mistakes_of_syntax_are_not_echoed() -> None:
    text = DELTA.read_text().replace("block DeltaBlock(dim) {", "blok DeltaBlock(dim) {")
    found = nldsl.check(nldsl.Source("delta.nl", text))
    assert len([d for d in found if d.severity == "error"]) == 1, [d.message for d in found]


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def test_importing_nldsl_loads_nothing_heavy() -> None:
    heavy = ("torch", "networkx", "lark", "pydantic", "click")
    program = f"import nldsl, sys; print([m for m in {heavy} if m in sys.modules])"
    assert run(program) == "[]\n"


def test_check_and_graph_never_load_torch() -> None:
    program = (
        "import nldsl, sys; from nldsl.levels.draw import render\n"
        "assert nldsl.check('specs/hope.nl') is not None; spec = nldsl.load('specs/hope.nl')\n"
        "spec.expand(), spec.plan(), spec.why('steps'), nldsl.diff(spec, 'specs/deltanet.nl')\n"
        "[render(spec.levels(), f) for f in ('text', 'svg', 'mermaid', 'dot', 'html', 'json')]\n"
        "print('torch' in sys.modules)"
    )
    assert run(program) == "False\n"


LONG = """
memory M{i}(dim, heads = 4) {{
  key = x |> linear |> unit
  value = x |> linear
  query = x |> linear |> unit
  rate = x |> linear(heads) |> sigmoid
  objective = l2
  out = read |> rmsnorm |> linear
}}
block B{i}(dim) {{ a: x = x + (x |> rmsnorm |> M{i}(dim)) }}"""


def test_a_thousand_lines_are_checked() -> None:
    """Their time is measured by `make bench`, where it is compared and not asserted."""
    source = nldsl.Source("long.nl", DELTA.read_text() + "".join(LONG.format(i=i) for i in range(110)))
    assert source.line_count > 1000
    assert nldsl.check(source) == []


def test_the_version_is_the_packages() -> None:
    stated = (ROOT / "pyproject.toml").read_text().split('\nversion = "')[1].split('"')[0]
    assert nldsl.__version__ == stated


def test_the_parse_tables_are_those_of_the_grammar() -> None:
    """After a change of the grammar or of lark: `python scripts/make_tables.py`."""
    stored = json.loads((ROOT / "grammar" / "tables.json").read_text())
    assert stored["fingerprint"] == parser_tables.fingerprint()
    texts = [p.read_text() for p in (ROOT / "specs").glob("*.nl")]
    loaded = [parse.parse_nl(nldsl.Source("a.nl", text)) for text in texts]
    computed = parser_tables.computed()
    with mock.patch.object(parse, "parser", return_value=computed):
        assert [parse.parse_nl(nldsl.Source("a.nl", text)) for text in texts] == loaded


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="`nldsl` has no attribute `loud`"):
        _ = nldsl.loud  # type: ignore[attr-defined]
    assert set(nldsl.__all__) <= set(dir(nldsl))
