"""Specs in Markdown: each line that gives a finding says so at its end, and nothing else is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics import codes

from .harness import Case, cases, find, placed

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPLAIN = ROOT / "nldsl" / "diagnostics" / "explain"


GROUPS = [
    case for page in sorted(HERE.glob("*.md")) for case in cases(page.stem, page.read_text(encoding="utf-8"))
]
PAGES = [
    case
    for page in sorted(EXPLAIN.glob("*.md"))
    for case in cases(page.stem, page.read_text(encoding="utf-8"), edition=page.stem >= "NL02")
]


@pytest.mark.parametrize("case", GROUPS, ids=lambda c: f"{c.page}:{c.line}")
def test_groups(case: Case) -> None:
    found = find(case.source)
    assert placed(found) == case.wanted, [f"{d.code} {d.message}" for d in found]


@pytest.mark.parametrize("case", PAGES, ids=lambda c: f"{c.page}:{c.line}")
def test_explain_pages(case: Case) -> None:
    found = find(case.source)
    assert placed(found) == case.wanted, [f"{d.code} {d.message}" for d in found]


def test_every_group_has_at_least_two_findings() -> None:
    for page in sorted(HERE.glob("*.md")):
        marked = {code for case in GROUPS if case.page == page.stem for _, _, code in case.wanted}
        assert len(marked) >= 2, page.name


def test_severities_are_those_of_the_pages() -> None:
    for case in (*GROUPS, *PAGES):
        for _, severity, code in case.wanted:
            known = codes.lookup(code)
            assert known is not None and known.severity == severity, (case.page, code)
