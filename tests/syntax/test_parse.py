"""Reading `.nl` text: the tree, its spans and comments, and going on after mistakes."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from lark import Lark

from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.grammar import messages
from nldsl.syntax.parse import MAX_FINDINGS, parse_expression, parse_nl
from nldsl.syntax.parser_tables import grammar_text, parser

GOOD = sorted((Path(__file__).parent / "good").glob("*.nl"))


ONE = e.Argument(e.Number(1), "n")


def value_of(text: str) -> e.Expr:
    value, findings = parse_expression(Source("value", text))
    assert findings == []
    assert value is not None
    return value


def codes(text: str) -> list[str]:
    return [f.code for f in parse_nl(Source("a.nl", text))[1]]


# -- the grammar -------------------------------------------------------------------------------


def test_grammar_is_strict() -> None:
    class Newlines:
        always_accept = ("_NL",)

        def process(self, stream: object) -> object:
            return stream

    newlines: Any = Newlines()
    Lark(grammar_text(), parser="lalr", lexer="contextual", start="document", postlex=newlines, strict=True)


def test_every_parser_state_has_a_position() -> None:
    lark, _ = parser()
    table = lark.parser.parser._parse_table.states
    terminals = {t.name for t in lark.terminals} | {"$END", "ERROR"}
    sets = {frozenset(name for name in actions if name in terminals) for actions in table.values()}
    assert sets == set(messages.POSITIONS)


def test_every_terminal_has_words() -> None:
    lark, _ = parser()
    ignored = {"WHITE", "COMMENT"}
    assert {t.name for t in lark.terminals} - ignored <= set(messages.TERMINALS)


# -- expressions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4 tokens", e.Quantity(e.Number(4), "token")),
        ("1 step", e.Quantity(e.Number(1), "step")),
        ("2%", e.Quantity(e.Number(2), "%")),
        ("(n * 2) steps", e.Quantity(e.Binary("*", e.Name(("n",)), e.Number(2)), "step")),
        ("(n) step", e.Quantity(e.Name(("n",)), "step")),
        ("every n steps", e.Phrase((e.Name(("every",)), e.Quantity(e.Name(("n",)), "step")))),
        ("every sequence", e.Phrase((e.Name(("every",)), e.Name(("sequence",))))),
        ("set steps", e.Phrase((e.Name(("set",)), e.Name(("steps",))))),
        ("window n tokens", e.Phrase((e.Name(("window",)), e.Quantity(e.Name(("n",)), "token")))),
        ("a - b - c", e.Binary("-", e.Binary("-", e.Name(("a",)), e.Name(("b",))), e.Name(("c",)))),
        ("2 ^ 3 ^ 4", e.Binary("^", e.Number(2), e.Binary("^", e.Number(3), e.Number(4)))),
        ("-a ^ 2", e.Unary("-", e.Binary("^", e.Name(("a",)), e.Number(2)))),
        ("a * -b", e.Binary("*", e.Name(("a",)), e.Unary("-", e.Name(("b",))))),
        ("a + b |> f", e.Pipe(e.Binary("+", e.Name(("a",)), e.Name(("b",))), (e.Name(("f",)),))),
        ("f (x)", e.Phrase((e.Name(("f",)), e.Name(("x",))))),
        ("f(x)", e.Call(e.Name(("f",)), (e.Argument(e.Name(("x",))),))),
        ("m.read(q, n = 1,)", e.Call(e.Name(("m", "read")), (e.Argument(e.Name(("q",))), ONE))),
        ("2_000", e.Number(2000)),
        ("3e-4", e.Number(3e-4)),
        ("1.5", e.Number(1.5)),
        ('"a\\"b\\n"', e.Text('a"b\n')),
        ("(a, b)", e.TupleOf((e.Name(("a",)), e.Name(("b",))))),
        ("[\n  a,\n  b,\n]", e.ListOf((e.Name(("a",)), e.Name(("b",))))),
        ("x\n|> f\n\n  # why\n  |> g", e.Pipe(e.Name(("x",)), (e.Name(("f",)), e.Name(("g",))))),
        ("a +\n b", e.Binary("+", e.Name(("a",)), e.Name(("b",)))),
    ],
)  # fmt: skip
def test_expression(text: str, expected: e.Expr) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize("text", ["", "a = 1", "a, b", "l: a", "a b = 3", "f(", '"a'])
def test_what_is_no_single_value(text: str) -> None:
    value, findings = parse_expression(Source("value", text))
    assert value is None
    assert len(findings) == 1


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "let a = 1",
        "let a = 1\n",
        "let a = 1\r\n",
        "\ufefflet a = 1\n",
        "\n\n  let a = 1  # c\n# d",
        "let a = 1,\n",
    ],
)
def test_line_ends_and_marks_make_no_difference(text: str) -> None:
    body, findings = parse_nl(Source("a.nl", text))
    assert findings == []
    assert body == parse_nl(Source("b.nl", "let a = 1\n"))[0]


def test_crlf_reads_as_lf() -> None:
    text = GOOD[0].read_text(encoding="utf-8")
    assert parse_nl(Source("a.nl", text.replace("\n", "\r\n"))) == (parse_nl(Source("b.nl", text))[0], [])


def test_statements_end_at_their_value() -> None:
    text = "memory A(dim) {\n  key = x |> f(4)   # why\n\n  map = (matrix)\n}\n\nlet n = 4\n"
    body, _ = parse_nl(Source("a.nl", text))
    memory = body.statements[0].value
    assert isinstance(memory, e.Phrase)
    assert memory.body is not None
    shown = [s.span.text for s in (*memory.body.statements, *body.statements[1:]) if s.span is not None]
    assert shown == ["key = x |> f(4)", "map = (matrix)", "let n = 4"]


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.stem)
def test_every_span_holds_what_it_spans(path: Path) -> None:
    source = Source(path.name, path.read_text(encoding="utf-8"))
    body, findings = parse_nl(source)
    assert findings == []
    for node in body.walk():
        assert node.span is not None
        if isinstance(node, e.Name):
            assert node.span.text.strip("()") == node.text
        assert node.span.source is source


def test_comments_go_to_their_statements() -> None:
    text = """# file

# about a
let a = 1  # one
# about b
memory B(dim) {  # head
  # about key
  key = x  # key's
    # inside the pipeline
    |> f
  # closing
}  # b's
# end
"""
    body, _ = parse_nl(Source("a.nl", text))
    a, b = body.statements
    assert (a.comments, a.trailing) == (("file", "\n", "about a"), "one")
    assert (b.comments, b.trailing, body.closing_comments) == (("about b",), "b's", ("end",))
    assert isinstance(b.value, e.Phrase)
    inner = b.value.body
    assert inner is not None
    assert inner.statements[0].comments == ("head", "about key", "key's", "inside the pipeline")
    assert inner.closing_comments == ("closing",)


# -- going on after a mistake ------------------------------------------------------------------


def test_the_rest_of_the_file_is_read() -> None:
    text = "let a = = 1\nlet b = 2\nmemory C(dim) {\n  key = )\n  map = matrix\n}\nlet d = 4 @\nlet e = 5\n"
    body, findings = parse_nl(Source("a.nl", text))
    assert [f.code for f in findings] == ["NL0107", "NL0102", "NL0105"]
    assert len(body.statements) == 3
    memory = body.statements[1].value
    assert isinstance(memory, e.Phrase)
    assert memory.body is not None
    assert len(memory.body.statements) == 1


def test_an_unclosed_brace_does_not_hide_what_follows() -> None:
    text = "memory A(dim) {\n  key = x\n\nmemory B(dim) {\n  key = x\n}\n"
    body, findings = parse_nl(Source("a.nl", text))
    assert [f.code for f in findings] == ["NL0101"]
    assert len(body.statements) == 2


MISTAKES = (
    *("  key = = x\n", "  key = conv(4\n", '  key = "x\n', "  key = x @ y\n"),
    *("  key = x)\n", "  key = x y = z\n", "  key =\n  map = x\n", "  : x\n"),
)


def test_forty_mistakes_in_a_long_file_are_forty_findings() -> None:
    block = (
        "memory A{n}(dim, heads = 4) {{\n  key{n} = x |> linear |> conv(4, same = 1)\n{m}"
        "  map = mlp(4 * dim)  # ok\n  update = every 4 tokens\n}}\n\n"
    )
    blocks = [
        block.format(n=n, m=MISTAKES[n // 40 % len(MISTAKES)] if n % 40 == 0 else "") for n in range(1600)
    ]
    text = "".join(blocks)
    assert text.count("\n") > 9_000
    began = time.perf_counter()
    body, findings = parse_nl(Source("a.nl", text))
    assert len(findings) == 40
    assert len(body.statements) == 1600
    assert time.perf_counter() - began < 10


def test_findings_are_capped() -> None:
    findings = parse_nl(Source("a.nl", "let a = = 1\n" * 80))[1]
    assert len(findings) == MAX_FINDINGS + 1
    assert (findings[-1].code, findings[-1].severity) == ("NL0108", "note")


def test_no_edit_makes_the_reader_fail() -> None:
    text = GOOD[-1].read_text(encoding="utf-8")
    chance = random.Random(0)
    pieces = [*"(){}[]\"=|>,:+-^%#\n@;'\\", "|>", " x ", "\x00", "é", "{\n", "}\n"]
    for _ in range(300):
        at = chance.randrange(len(text))
        cut = at + chance.choice((0, 0, 1, 5))
        edited = text[:at] + chance.choice(pieces) + text[cut:]
        body, findings = parse_nl(Source("a.nl", edited))
        assert isinstance(body, e.Body)
        for finding in findings:
            assert finding.labels
            assert re.fullmatch(r"NL0\d{3}", finding.code)
