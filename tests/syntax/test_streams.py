"""Lines that name instances, cut segments and join streams, on both surfaces and under amendments."""

from __future__ import annotations

from pathlib import Path

import pytest

import nldsl
from nldsl.document.printer import print_statement
from nldsl.syntax import fmt
from nldsl.syntax.parse import parse_nl
from nldsl.syntax.yaml import parse_yaml, to_yaml

FEATURES = Path(__file__).parents[1] / "codegen" / "features"
NAMES = ("apart_sequence", "let_shared", "segments_inside", "streams_context", "streams_gate")
"""Specs with every form there is."""

SMALL = (FEATURES / "streams_context.nl").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_both_surfaces_say_the_same(name: str) -> None:
    text = (FEATURES / f"{name}.nl").read_text(encoding="utf-8")
    body, found = parse_nl(nldsl.Source(f"{name}.nl", text))
    again, wrong = parse_yaml(nldsl.Source(f"{name}.yaml", to_yaml(body)))
    assert (found, wrong) == ([], [])
    assert again == body
    assert fmt.format_body(again) == text


def lines(change: str, block: str = "Context") -> list[str]:
    """The lines of a block, amended."""
    spec = nldsl.load(nldsl.Source("small.nl", f"{SMALL}\nvariant V of Small {{ {change} }}\n"), variant="V")
    return [print_statement(s) for s in spec.amended.document.find(block).body]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "gives"),
    [
        ("set Context.m.heads = 4", "let m = Deep(dim, heads = 4)"),
        ("set Context.m.Deep.heads = 4", "let m = Deep(dim, heads = 4)"),
        ("replace Context.m by Deep(dim, period = 8 tokens)", "let m = Deep(dim, period = 8 tokens)"),
        ("remove Context.persistent", "context = [recalled, x] |> SoftmaxAttention(dim, heads = 2)"),
        ("remove Context.recalled.linear", "recalled = m.read(x)"),
        (
            "set Context.context.SoftmaxAttention.heads = 1",
            "context = [persistent(prefix), recalled, x] |> SoftmaxAttention(dim, heads = 1)",
        ),
        (
            "replace Context.context.SoftmaxAttention by Deep(dim)",
            "[persistent(prefix), recalled, x] |> Deep(dim)",
        ),
    ],
)
def test_paths_reach_instances_streams_and_segments(change: str, gives: str) -> None:
    assert any(gives in line for line in lines(change))


def test_a_write_can_be_taken_away() -> None:
    assert not any("m.write" in line for line in lines("remove Context.m.write"))


def test_a_parameter_is_not_taken_for_a_word_in_a_line() -> None:
    spec = nldsl.load(
        nldsl.Source("small.nl", f"{SMALL}\nvariant V of Small {{ set Context.segment = 4 }}\n"), variant="V"
    )
    assert spec.expanded.model is not None
    assert any("segments(segment)" in line for line in lines("set Context.segment = 4"))


def test_a_path_that_matches_nothing_is_told_what_there_is() -> None:
    with pytest.raises(nldsl.SpecError, match="NL0601"):
        lines("set Context.recalld = x")


def test_a_body_breaks_before_the_call_in_front_of_it() -> None:
    inside = ", ".join(f"{name} = x |> linear |> linear |> linear" for name in ("first", "second", "x"))
    body, _ = parse_nl(nldsl.Source("a.nl", f"block B(dim) {{\n  segments(dim) {{ {inside} }}\n}}\n"))
    assert fmt.format_body(body).splitlines()[1] == "  segments(dim) {"
