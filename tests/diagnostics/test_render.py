"""What findings look like in every format."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Source, Span
from nldsl.diagnostics.render import FORMATS, Format, render
from nldsl.diagnostics.render.cells import cells, char_widths, printable
from nldsl.diagnostics.render.summary import in_order, summary

GOLDEN = Path(__file__).parent / "golden"
HOPE = Source(
    "specs/hope.nl",
    """edition 2026

# A small model.
memory Continuum(dim) {
  objective = task
  chain sequential {

    level fast {
      update = every 64 tokens
    }
    level slow {
      update = every 16 tokens, map = mlp(dim), rule = gdd
    }
  }
}
""",
)
LIBRARY = Source("lib/rules.nl", "optimizer gd(rate) {\n  weight = weight - rate * grad\n}\n")
ODD = Source(
    "odd.nl",
    "\tkey\t= 中文 |> linear # 👩\u200d💻 e\u0301\r\n"
    + "x" * 150
    + " = wrong "
    + "y" * 90
    + '\nname = "\x1b[31mred\u202e"\nlast',
)


def at(source: Source, text: str, occurrence: int = 0) -> Span:
    start = -1
    for _ in range(occurrence + 1):
        start = source.text.index(text, start + 1)
    return Span(source, start, start + len(text))


def between(source: Source, first: str, last: str) -> Span:
    return at(source, first).to(at(source, last))


TWO_PLACES = Diagnostic(
    "NL9312",
    "level `fast` updates less often than the level it feeds",
    (
        Label(at(HOPE, "every 64 tokens"), "once per 64 tokens"),
        Label(at(HOPE, "every 16 tokens"), "`slow` updates once per 16 tokens"),
    ),
    notes=("nested levels run from fast (inner) to slow (outer)",),
    help="swap the two periods",
)
FINDINGS: dict[str, Diagnostic] = {
    "two places": TWO_PLACES,
    "several labels in a line": Diagnostic(
        "NL9201",
        "no rule is called `gdd`",
        (
            Label(at(HOPE, "gdd"), "not declared"),
            Label(at(HOPE, "mlp(dim)"), "the map it would serve"),
            Label(at(HOPE, "update", 1), "the clock"),
        ),
        fix=Fix("write `gd`", (Edit(at(HOPE, "gdd"), "gd"),)),
    ),
    "overlapping labels": Diagnostic(
        "NL9301",
        "16 tokens is no period",
        (Label(at(HOPE, "16 tokens"), "this"), Label(at(HOPE, "every 16 tokens"), "in this clock")),
    ),
    "several files": Diagnostic(
        "NL9202",
        "`gd` is declared twice",
        (Label(at(HOPE, "gdd"), "used here"), Label(at(LIBRARY, "gd(rate)"), "declared here")),
        notes=("a -> b\nb -> a",),
        severity="warning",
    ),
    "lines": Diagnostic(
        "NL9302",
        "a level has no map",
        (
            Label(between(HOPE, "level fast", "64 tokens\n    }"), "this level"),
            Label(at(HOPE, "every 64"), "its clock"),
        ),
    ),
    "lines that start mid line": Diagnostic(
        "NL9302",
        "a chain is too short",
        (Label(between(HOPE, "sequential", "64 tokens\n    }"), "the chain"),),
    ),
    "nested lines": Diagnostic(
        "NL9303",
        "a level has no map",
        (
            Label(between(HOPE, "{\n      update = every 64", "tokens\n    }"), "the level"),
            Label(between(HOPE, "chain", "gdd\n    }\n  }"), "in this chain"),
        ),
    ),
    "tabs and wide characters": Diagnostic(
        "NL9204",
        "`linear` has no size",
        (
            Label(at(ODD, "linear"), "here"),
            Label(at(ODD, "中文"), "from this"),
            Label(at(ODD, "e\u0301"), "combined"),
        ),
    ),
    "a long line": Diagnostic("NL9205", "`wrong` is unknown", (Label(at(ODD, "wrong"), "here"),)),
    "control characters": Diagnostic(
        "NL9110", "a string holds \x1b[2J", (Label(at(ODD, '"\x1b[31mred\u202e"'), "this \u202estring"),)
    ),
    "the end of a file": Diagnostic(
        "NL9102", "a brace is left open", (Label(Span(ODD, len(ODD.text), len(ODD.text)), "the file ends"),)
    ),
    "a line end": Diagnostic("NL9103", "a value is missing", (Label(at(HOPE, "\n"), "before this"),)),
    "no place": Diagnostic("NL9801", "the machine has less memory than the run needs", severity="note"),
}


@pytest.mark.parametrize("format", FORMATS)
def test_formats(format: Format, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"all.{format}.txt", render(list(FINDINGS.values()), format, width=100))


@pytest.mark.parametrize("format", ["full", "concise"])
def test_color(format: Format, golden: Callable[[Path, str], None]) -> None:
    text = render([TWO_PLACES, FINDINGS["nested lines"]], format, color=True)
    golden(GOLDEN / f"color.{format}.txt", text)
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == render([TWO_PLACES, FINDINGS["nested lines"]], format)


def test_the_look_that_was_agreed() -> None:
    assert (
        render([TWO_PLACES])
        == """\
error[NL9312]: level `fast` updates less often than the level it feeds
  --> specs/hope.nl:9:16
   |
 9 |       update = every 64 tokens
   |                ^^^^^^^^^^^^^^^ once per 64 tokens
...
12 |       update = every 16 tokens, map = mlp(dim), rule = gdd
   |                --------------- `slow` updates once per 16 tokens
   |
   = note: nested levels run from fast (inner) to slow (outer)
   = help: swap the two periods
   = explain: nldsl explain NL9312
"""
    )


def test_underlines_stand_below_what_they_mark() -> None:
    rows = render([FINDINGS["tabs and wide characters"]]).split("\n")
    source = next(row for row in rows if "linear" in row and "|>" in row)
    marks = next(row for row in rows if "^" in row)
    assert cells(source[: source.index("linear")]) == marks.index("^")
    assert cells(source[: source.index("中文")]) == marks.index("-")


def test_nothing_that_moves_a_cursor_is_printed() -> None:
    for format in ("full", "concise"):
        text = render([FINDINGS["control characters"]], format)
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_widths() -> None:
    assert char_widths("a中\t") == [1, 2, 4]
    assert cells("👍🏽") == 2
    assert cells("❤\ufe0f") == 2
    assert cells("e\u0301") == 1
    assert printable("a\rb") == "a␍b"


def test_no_findings_are_an_empty_text_for_people_and_a_whole_document_for_programs() -> None:
    assert render([]) == ""
    assert render([], "concise") == ""
    assert render([], "github") == ""
    assert json.loads(render([], "json"))["diagnostics"] == []
    assert json.loads(render([], "sarif"))["runs"][0]["results"] == []


def test_json_says_everything() -> None:
    document = json.loads(render([FINDINGS["several labels in a line"]], "json"))
    assert document["version"] == 1
    (finding,) = document["diagnostics"]
    assert finding["code"] == "NL9201"
    assert finding["range"]["start"] == {"line": 12, "column": 56, "offset": at(HOPE, "gdd").start}
    assert finding["range"]["end"]["column"] == 59
    assert [label["primary"] for label in finding["labels"]] == [True, False, False]
    assert finding["fix"]["applicability"] == "safe"
    assert finding["fix"]["edits"][0]["text"] == "gd"


def test_github_leaves_the_column_out_of_several_lines_and_escapes() -> None:
    one = render([FINDINGS["several labels in a line"]], "github")
    many = render([FINDINGS["lines"]], "github")
    assert one.startswith("::error ")
    assert ",col=56," in one
    assert "col=" not in many.split("::")[1]
    assert "endLine=" in many
    odd = Diagnostic("NL0001", "50% of\nit", (Label(Span(Source("a,b:c.nl", "x"), 0, 1)),))
    assert render([odd], "github").count("\n") == 1
    assert "file=a%2Cb%3Ac.nl" in render([odd], "github")
    assert "50%25 of%0Ait" in render([odd], "github")


def test_sarif_has_what_the_standard_demands() -> None:
    log = json.loads(render(list(FINDINGS.values()), "sarif"))
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in {"error", "warning", "note"}
        assert result["message"]["text"]
        for location in result.get("locations", []):
            region = location["physicalLocation"]["region"]
            assert (region["startLine"], region["startColumn"]) <= (region["endLine"], region["endColumn"])


def test_summary() -> None:
    assert summary([]) == ""
    assert summary([FINDINGS["no place"]]) == "Found 1 note"
    assert summary([TWO_PLACES]) == "Found 1 error in 1 file"
    errors = [TWO_PLACES, FINDINGS["several labels in a line"], FINDINGS["a long line"]]
    expected = "Found 3 errors, 1 warning in 2 files (1 fixable with `--fix`)"
    assert summary([*errors, FINDINGS["several files"]]) == expected


def test_order_is_by_file_then_place() -> None:
    later, sooner = TWO_PLACES, FINDINGS["a line end"]
    other, none = FINDINGS["a long line"], FINDINGS["no place"]
    assert in_order([later, other, sooner, none]) == [none, sooner, later, other]


@example("a\na", [(1, 3), (1, 3)])
@given(
    st.text(st.sampled_from("ab \t\n\r中👩\u200d💻\u0301\x1b{}"), max_size=60),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), min_size=1, max_size=4),
)
def test_no_span_breaks_a_renderer(text: str, spans: list[tuple[int, int]]) -> None:
    source = Source("a.nl", text)
    size = len(text)
    labels = tuple(Label(Span(source, min(a, b, size), min(max(a, b), size)), "here") for a, b in spans)
    finding = Diagnostic("NL0101", "found", labels)
    for format in FORMATS:
        assert render([finding], format, width=40)
