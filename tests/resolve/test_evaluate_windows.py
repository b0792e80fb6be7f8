"""How many held-out windows a run measures: what the field takes, and where it goes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import nldsl
from nldsl.ablate.plan import plan
from nldsl.codegen.runtime import FILES
from nldsl.diagnostics.model import Source, SpecError
from nldsl.resolve.expanded import WINDOWS
from nldsl.syntax.fmt import format_body
from nldsl.syntax.parse import parse_nl
from nldsl.syntax.yaml import parse_yaml, to_yaml

RUN = """edition 2026

let many = 32

model Small(dim = 8) {{
  tokens |> embed(256, dim) |> unembed(tied)
}}

train Run {{
  model = Small
  data  = {data}
  steps = 4
{given}  level all {{ learns = rest, rule = adamw(rate = 1e-3) }}
  eval every 2 steps {{ perplexity }}
}}

variant All of Run {{ set evaluate_windows = all }}

ablate Study of Run {{
  vary evaluate_windows = [{varied}]
}}
"""


def _source(value: str | None, *, data: str = 'text("sotu", length = 16)', varied: str = "16, 256") -> Source:
    given = "" if value is None else f"  evaluate_windows = {value}\n"
    return Source("run.nl", RUN.format(given=given, data=data, varied=varied))


def _windows(spec: nldsl.Spec) -> Any:
    assert spec.expanded.training is not None
    return spec.expanded.training.evaluate_windows


def _settings(spec: nldsl.Spec, folder: Path) -> dict[str, ast.expr]:
    """The arguments of the settings that a build is given."""
    spec.compile(folder)
    tree = ast.parse((folder / "settings.py").read_text())
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "Settings")
    return {str(one.arg): one.value for one in call.keywords}


@pytest.mark.parametrize(
    ("value", "means"),
    [
        (None, 64),
        ("1", 1),
        ("1_000", 1000),
        ("1e3", 1000),
        ("2 * many", 64),
        ("all", "all"),
    ],
)
def test_a_run_says_how_many_windows_it_measures(value: str | None, means: int | str) -> None:
    assert _windows(nldsl.load(_source(value))) == means


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("0", "NL0205", "`evaluate_windows` is 0"),
        ("-3", "NL0205", "`evaluate_windows` is -3"),
        ("1.5", "NL0205", "`evaluate_windows` is 1.5"),
        ("50%", "NL0205", "`evaluate_windows` is 0.5"),
        ('"many"', "NL0203", "`evaluate_windows` cannot be `many`"),
        ("everything", "NL0203", "`evaluate_windows` cannot be `everything`"),
        ("16 steps", "NL0303", "`evaluate_windows` is counted in steps"),
        ("[16]", "NL0204", "`[16]` is not a number"),
    ],
)
def test_what_is_no_number_of_windows_is_refused(value: str, code: str, words: str) -> None:
    source = _source(value)
    found = [d for d in nldsl.check_source(source) if d.severity == "error"]
    assert (found[0].code, found[0].message) == (code, words)
    span = found[0].labels[0].span
    assert source.text[span.start : span.end] == value


def test_it_is_a_path() -> None:
    assert _windows(nldsl.load(_source(None), variant="All")) == "all"
    assert _windows(nldsl.load(_source("16"), set={"evaluate_windows": 256})) == 256
    assert _windows(nldsl.load(_source("16"), set={"evaluate_windows": "all"})) == "all"
    with pytest.raises(SpecError) as caught:
        nldsl.load(_source(None), set={"evaluate_window": 256})
    assert caught.value.diagnostics[0].help == "maybe `evaluate_windows`"


def test_items_of_tasks_are_counted_as_windows_are() -> None:
    spec = nldsl.load(_source("32", data="classes(digits, [[0, 1], [2, 3]], length = 64)"))
    assert _windows(spec) == 32


def test_both_surfaces_and_the_canonical_form_keep_it() -> None:
    source = _source("all")
    body, _ = parse_nl(source)
    yaml = Source("run.yaml", to_yaml(body))
    assert "\n  evaluate_windows: all\n" in yaml.text
    assert _windows(nldsl.load(yaml)) == "all"
    again, findings = parse_yaml(yaml)
    assert findings == []
    assert format_body(again) == format_body(body)
    assert "\n  evaluate_windows = all\n" in format_body(body)


def test_a_complete_spec_states_it_where_it_is_not_the_default() -> None:
    plain, given = (nldsl.load(_source(value)).expand() for value in (None, str(WINDOWS)))
    assert "evaluate_windows" not in plain + given.partition("variant")[0]
    again = nldsl.load(Source("again.nl", nldsl.load(_source("all")).expand()))
    assert _windows(again) == "all"


def test_diff_and_why_know_it(tmp_path: Path) -> None:
    (tmp_path / "none.nl").write_text(_source(None).text)
    (tmp_path / "default.nl").write_text(_source("64").text)
    (tmp_path / "more.nl").write_text(_source("256").text)
    assert nldsl.diff(tmp_path / "none.nl", tmp_path / "default.nl") == ""
    assert "\n+  evaluate_windows = 256\n" in nldsl.diff(tmp_path / "none.nl", tmp_path / "more.nl")
    said = "evaluate_windows = 64\n  64  default (edition 2026)\n"
    assert nldsl.load(tmp_path / "none.nl").why("evaluate_windows") == said
    assert nldsl.load(tmp_path / "none.nl").why("Run.evaluate_windows") == "Run." + said
    assert (
        nldsl.load(tmp_path / "none.nl", variant="All")
        .why("evaluate_windows")
        .startswith("evaluate_windows = all\n")
    )


def test_a_build_has_it_where_it_is_not_the_default(tmp_path: Path) -> None:
    for name, value in (("none", None), ("default", "64")):
        assert "evaluate_windows" not in _settings(nldsl.load(_source(value)), tmp_path / name)
    some = _settings(nldsl.load(_source("256")), tmp_path / "some")
    assert ast.literal_eval(some["evaluate_windows"]) == 256
    every = _settings(nldsl.load(_source("all")), tmp_path / "all")
    assert ast.literal_eval(every["evaluate_windows"]) == "all"


def test_the_language_and_its_builds_have_one_default() -> None:
    from nldsl.codegen import runtime

    assert "schedule.py" in FILES
    tree = ast.parse((Path(runtime.__file__).parent / "schedule.py").read_text())
    fields = {
        ast.unparse(n.target): ast.unparse(n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.AnnAssign) and n.value is not None
    }
    assert fields["evaluate_windows"] == str(WINDOWS)


def test_variants_that_measure_more_are_others_and_the_default_is_the_base() -> None:
    rows = plan(nldsl.load(_source(None, varied="64, 256, all"))).rows
    assert [row.words for row in rows] == ["Run", "evaluate_windows = 256", "evaluate_windows = all"]
    assert len({row.digest for row in rows}) == 3
    assert plan(nldsl.load(_source("64"))).rows[0].digest == rows[0].digest
    assert plan(nldsl.load(_source("256"))).rows[0].digest == rows[1].digest
