"""Each part of the library has a page and a spec, and the pages are fresh."""

from __future__ import annotations

import re

from .blocks import ROOT
from .test_made import load

SCRIPT = load(ROOT / "scripts" / "make_library.py")


def test_pages_are_fresh() -> None:
    wanted = SCRIPT.made()
    stale = [p.name for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python scripts/make_library.py"
    assert {p.name for p in SCRIPT.PAGES.glob("*.md")} == {p.name for p in wanted}


def test_each_part_says_where_it_is_from() -> None:
    for part in SCRIPT.parts():
        assert part.source, part.name
        assert part.name in part.spec_path.read_text(encoding="utf-8")


def test_the_index_lists_each_page() -> None:
    text = (SCRIPT.PAGES / "index.md").read_text(encoding="utf-8")
    for part in SCRIPT.parts():
        assert f"]({part.name}.md)" in text
        assert re.search(rf"^{part.name}$", text, re.MULTILINE)
