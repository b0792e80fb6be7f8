"""The YAML surface: its spellings, where its spans point, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.syntax import read
from nldsl.syntax.fmt import format_body
from nldsl.syntax.parse import parse_nl, parse_statements
from nldsl.syntax.yaml import parse_yaml, to_yaml

ROOT = Path(__file__).parents[2]
GOOD = [
    *sorted((Path(__file__).parent / "good").glob("*.nl")),
    *sorted((ROOT / "nldsl" / "lib" / "rules").glob("*.nl")),
]

PAIRS = [
    ("edition 2026", "edition: 2026"),
    ("let n = 4", "let n: 4"),
    ('import [A, B] from "x.nl"', 'import [A, B] from "x.nl":'),
    ("variant V of T { set a.b = 1, remove c.d }", "variant V of T: {set a.b: 1, remove c.d: }"),
    ("ablate S of T { vary A.rule = [gd, f(1, 2)], keep p within 2% }",
     "ablate S of T:\n  vary A.rule: [gd, 'f(1, 2)']\n  keep: p within 2%"),
    ("ablate S of T { without = [A.b, [C.d, E.f]], replace A.b = [f(1), x |> g], variants = [V, W] }",
     "ablate S of T:\n  without: [A.b, [C.d, E.f]]\n  replace A.b: [f(1), x |> g]\n  variants: [V, W]"),
    ('ablate S of T { keep flops within 2% by [A.b, c], baseline = "V", measure = [loss, accuracy] }',
     "ablate S of T:\n  keep: flops within 2% by [A.b, c]\n  baseline: '\"V\"'\n  measure: [loss, accuracy]"),
    ("optimizer o(rate) { w = w, otherwise adamw(rate) |> f }",
     "optimizer o(rate): {w: w, otherwise: adamw(rate) |> f}"),
    ("block B(d) { mixer: x = x + a, y = x, m.write(y) }",
     "block B(d):\n  - mixer: x = x + a\n  - y = x\n  - m.write(y)"),
    ("block B(d) { segments(64) { y = x } }", "block B(d):\n  - segments(64): [y = x]"),
    ('train T { data = text("a") }', 'train T:\n  data: text("a")'),
    ('let s = "a: b"', "let s: '\"a: b\"'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "yaml"), PAIRS)
def test_spellings(text: str, yaml: str) -> None:
    from_text, _ = parse_statements(Source("a.nl", text))
    from_yaml, findings = parse_yaml(Source("a.yaml", yaml))
    assert findings == []
    assert from_yaml == from_text


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.stem)
def test_there_and_back_loses_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    body, _ = parse_nl(Source(path.name, text))
    yaml = to_yaml(body)
    again, findings = parse_yaml(Source("a.yaml", yaml))
    assert findings == []
    assert format_body(again) == format_body(body)
    assert read(Source("a.yaml", yaml)) == read(Source("a.nl", text))


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.stem)
def test_spans_point_into_the_file(path: Path) -> None:
    body, _ = parse_nl(Source(path.name, path.read_text(encoding="utf-8")))
    source = Source("a.yaml", to_yaml(body))
    again, _ = parse_yaml(source)
    for node in again.walk():
        assert node.span is not None
        assert node.span.source is source
        if isinstance(node, e.Name):
            assert node.span.text.strip("()") == node.text


def test_spans_inside_a_block_scalar() -> None:
    source = Source("a.yaml", "block B(d):\n  - |\n    y = x |> branch {\n      a: inner\n    }\n")
    body, findings = parse_yaml(source)
    assert findings == []
    inner = next(n for n in body.walk() if isinstance(n, e.Name) and n.text == "inner")
    assert inner.span is not None
    assert inner.span.where == "a.yaml:4:10"


def test_crlf() -> None:
    body, findings = parse_yaml(Source("a.yaml", "edition: 2026\r\nlet a: 4  # c\r\n"))
    assert findings == []
    assert body.statements[1].trailing == "c"


def test_fixes_of_plain_scalars_point_into_the_file() -> None:
    findings = read(Source("a.yaml", "edition: 2026\nmemory A(dim):\n  update: every 16tokens\n"))[1]
    fix = findings[0].fix
    assert fix is not None
    assert fix.edits[0].span.where == "a.yaml:3:19"
