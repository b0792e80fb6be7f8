"""Fixes applied to text."""

from hypothesis import given
from hypothesis import strategies as st

from nldsl.diagnostics.fix import apply_fixes
from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Source, Span

A = Source("a.nl", "0123456789")
B = Source("b.nl", "abc")


def fix(*edits: tuple[Source, int, int, str], safe: bool = True) -> Diagnostic:
    made = tuple(Edit(Span(source, start, end), text) for source, start, end, text in edits)
    return Diagnostic("NL0101", "found", fix=Fix("mend it", made, safe))


def test_edits_of_several_findings_and_files() -> None:
    fixed = apply_fixes(
        [fix((A, 8, 9, "!")), fix((A, 0, 0, "<"), (B, 1, 2, "")), fix((A, 2, 4, "long text"))]
    )
    assert fixed.texts == {"a.nl": "<01long text4567!9", "b.nl": "ac"}
    assert fixed.applied == 3


def test_unsafe_fixes_and_findings_without_one_change_nothing() -> None:
    fixed = apply_fixes([fix((A, 0, 1, "x"), safe=False), Diagnostic("NL0101", "found")])
    assert fixed.texts == {}
    assert fixed.applied == 0


def test_an_overlapping_fix_waits_as_a_whole() -> None:
    fixed = apply_fixes([fix((A, 2, 5, "x")), fix((A, 4, 6, "y"), (A, 9, 10, "z"))])
    assert fixed.texts == {"a.nl": "01x56789"}
    assert fixed.applied == 1


def test_neighbouring_edits_both_hold() -> None:
    assert apply_fixes([fix((A, 0, 2, "x")), fix((A, 2, 4, "y"))]).texts == {"a.nl": "xy456789"}


def test_two_findings_that_ask_for_the_same_edit_get_it_once() -> None:
    fixed = apply_fixes([fix((A, 0, 0, "edition 2026\n")), fix((A, 0, 0, "edition 2026\n"))])
    assert fixed.texts == {"a.nl": "edition 2026\n0123456789"}


def test_different_insertions_at_one_place_wait() -> None:
    assert apply_fixes([fix((A, 3, 3, "x")), fix((A, 3, 3, "y"))]).texts == {"a.nl": "012x3456789"}


def test_only_named_sources_change() -> None:
    fixed = apply_fixes([fix((A, 0, 1, "x"), (B, 0, 1, "y")), fix((A, 1, 2, "z"))], only=["a.nl"])
    assert fixed.texts == {"a.nl": "0z23456789"}


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10), st.sampled_from(["", "x", "yz"])), max_size=6)
)
def test_what_no_edit_touches_stays(edits: list[tuple[int, int, str]]) -> None:
    findings = [fix((A, min(a, b), max(a, b), text)) for a, b, text in edits]
    text = apply_fixes(findings).texts.get("a.nl", A.text)
    touched = {i for a, b, _ in edits for i in range(min(a, b), max(a, b))}
    kept = [c for i, c in enumerate(A.text) if i not in touched]
    assert [c for c in text if c in kept] == kept
