"""Statements to documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics.model import Source
from nldsl.diagnostics.suggest import did_you_mean, nearest
from nldsl.document import model as m
from nldsl.document.printer import print_expr
from nldsl.syntax import read

GOOD = sorted((Path(__file__).parent / "good").glob("*.nl"))


def document_of(text: str) -> m.Document:
    document, findings = read(Source("a.nl", "edition 2026\n" + text))
    assert findings == []
    return document


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.stem)
def test_good_files_have_no_finding(path: Path) -> None:
    document, findings = read(Source(path.name, path.read_text(encoding="utf-8")))
    assert findings == []
    assert m.Document.model_validate(document.model_copy()) == document


def test_memory_with_a_chain() -> None:
    memory = document_of(
        "memory A(dim, n = 4) { key = x, chain nested(2, depth = 3) { level f { map = matrix } } }"
    ).find("A")
    assert isinstance(memory, m.Memory)
    assert [p.name for p in memory.parameters] == ["dim", "n"]
    assert list(memory.fields) == ["key"]
    assert memory.chain is not None
    assert memory.chain.variant == "nested"
    assert {k: print_expr(v) for k, v in memory.chain.arguments.items()} == {"0": "2", "depth": "3"}
    assert memory.chain.levels[0].fields.keys() == {"map"}


def test_imports() -> None:
    imports = document_of('import "p.nl" as p\nimport [A, B] from "q.nl"\nimport C from std\n').imports
    assert [(i.source, i.names, i.alias) for i in imports] == [
        ("p.nl", (), "p"),
        ("q.nl", ("A", "B"), None),
        ("std", ("C",), None),
    ]


def test_amendments() -> None:
    text = "variant V of T { set a.b = 1, set steps = 2, "
    text += "add c = x |> f, remove d.e, replace f.g by mlp(4 * dim) |> h }"
    variant = document_of(text).find("V")
    assert isinstance(variant, m.Variant)
    said = [(a.action, a.path, None if a.value is None else print_expr(a.value)) for a in variant.amendments]
    assert said == [
        ("set", "a.b", "1"),
        ("set", "steps", "2"),
        ("add", "c", "x |> f"),
        ("remove", "d.e", None),
        ("replace", "f.g", "mlp(4 * dim) |> h"),
    ]


def test_axes() -> None:
    lines = (
        "grid [a.b, c] = [[1, 2], [3, 4]]",
        "zip [a, b] = [[1], [2]]",
        "vary x.y = [1]",
        "without = [p.q]",
    )
    text = f"ablate S of T {{ {', '.join(lines)} }}"
    study = document_of(text).find("S")
    assert isinstance(study, m.Ablate)
    said = [(a.action, a.paths, [[print_expr(v) for v in row] for row in a.values]) for a in study.axes]
    assert said == [
        ("grid", ["a.b", "c"], [["1", "2"], ["3", "4"]]),
        ("zip", ["a", "b"], [["1"], ["2"]]),
        ("vary", ["x.y"], [["1"]]),
        ("without", ["p.q"], []),
    ]


def test_otherwise_may_be_a_pipeline() -> None:
    rule = document_of("optimizer o(rate) { weight = w, otherwise adamw(rate) |> clip(1) }").find("o")
    assert isinstance(rule, m.Optimizer)
    assert rule.otherwise is not None
    assert print_expr(rule.otherwise) == "adamw(rate) |> clip(1)"


def test_words_that_take_a_parenthesis() -> None:
    document_of("memory A(dim) { update = every (4 * n) steps, window = n tokens weighted by (a + b) }")


def test_spans_of_names_and_fields() -> None:
    source = Source("a.nl", "edition 2026\nmemory Store(dim) {\n  key = x\n}\n")
    memory = read(source)[0].find("Store")
    assert isinstance(memory, m.Memory)
    assert memory.name_span.text == "Store"
    assert memory.field_spans["key"].where == "a.nl:3:3"


def test_nearest() -> None:
    assert nearest("anything", ["only"]) == ["only"]
    assert nearest("MODEL", ["memory", "model"]) == ["model"]
    assert nearest("xyz", ["memory", "model"]) == []
    assert did_you_mean("xyz", ["memory", "model"]) is None
    assert did_you_mean("tarin", ["train", "block"]) == "did you mean `train`?"


@pytest.mark.parametrize(
    "line",
    [
        "without = a.b", "without a = [b]", "without = [[]]", "without = [[a, [b]]]", "without = [f(x)]",
        "variants = V", "variants = [1]", "variants V = [W]",
        "replace a.b by f(1)", "replace a.b = f(1)", "replace = [a]", "replace 3 = [a]", "replace [a] = [b]",
        "grid [a, b] = [[1]]", "zip [a] = [1]", "grid a = [[1]]", "vary [a] = [1]", "keep",
    ],
)  # fmt: skip
def test_malformed_lines_of_studies(line: str) -> None:
    document, findings = read(Source("a.nl", f"edition 2026\nablate S of T {{ {line} }}\n"))
    assert [d.code for d in findings] == ["NL0122"]
    assert findings[0].help is not None and line.split(maxsplit=1)[0] in findings[0].help
    study = document.find("S")
    assert isinstance(study, m.Ablate)
    assert (study.axes, study.keep) == ([], None)


def test_one_budget_for_each_study() -> None:
    text = "edition 2026\nablate S of T { keep time within 2%, keep flops within 2% }\n"
    assert [d.code for d in read(Source("a.nl", text))[1]] == ["NL0124"]
