"""The formatter: canonical, stable, changing nothing that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics.model import Source
from nldsl.syntax.fmt import WIDTH, format_body
from nldsl.syntax.parse import find_comments, parse_nl

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for folder in ("specs", "nldsl/lib", "tests/syntax/good")
    for path in (ROOT / folder).rglob("*.nl")
    if not parse_nl(Source(path.name, path.read_text(encoding="utf-8")))[1]
)


def formatted(text: str) -> str:
    body, findings = parse_nl(Source("a.nl", text))
    assert findings == []
    return format_body(body)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_same_tree_every_comment_and_stable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    once = formatted(text)
    assert parse_nl(Source("a", once))[0] == parse_nl(Source("b", text))[0]
    assert sorted(c.text for c in find_comments(once)) == sorted(c.text for c in find_comments(text))
    assert formatted(once) == once


def test_layout() -> None:
    text = """edition   2026
import [A] from std
import [B] from std



# about n
let n=4 # four
memory M ( ) {}
"""
    assert formatted(text.replace("M ( ) {}", "M(dim){key=x,\n\n\n\nvalue=x |> f # v\n}")) == (
        "edition 2026\n\nimport [A] from std\nimport [B] from std\n\n# about n\nlet n = 4  # four\n\n"
        "memory M(dim) {\n  key = x\n\n  value = x |> f  # v\n}\n"
    )


def test_equals_signs_share_a_column() -> None:
    assert formatted("memory M {\n  a = 1\n  bcd = 2\n\n  e = 3\n}\n") == (
        "memory M {\n  a   = 1\n  bcd = 2\n\n  e = 3\n}\n"
    )


def test_long_pipelines_break_before_the_pipe() -> None:
    stages = [f"stage_number_{i}(width = {i})" for i in range(5)]
    text = formatted("let y = x |> " + " |> ".join(stages))
    assert text == "let y = x |> " + ("\n          |> ".join(stages)) + "\n"


def test_long_lists_calls_and_sums_break() -> None:
    words = ", ".join(f"a_rather_long_name_{i}" for i in range(8))
    for text in (f"let y = [{words}]", f"let y = f({words})", "let y = " + words.replace(", ", " + ")):
        assert all(len(line) <= WIDTH for line in formatted(text).split("\n"))
        assert formatted(formatted(text)) == formatted(text)


def test_a_short_body_stays_on_its_line_while_it_fits() -> None:
    short = "memory M { a = 1, b = 2 }\n"
    assert formatted(short) == short
    long = "memory M { " + ", ".join(f"field_{i} = {i}" for i in range(12)) + " }\n"
    assert formatted(long).startswith("memory M {\n  field_0  = 0\n")
