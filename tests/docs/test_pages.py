"""Links lead somewhere, Python in the pages runs, words are those of the glossary, pages stay short."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

import nldsl
from nldsl.levels.draw import render

from .blocks import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    return FENCE.sub("", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MyST give the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower().replace("`", "")) for head in heads]
    return {one.strip().replace(" ", "-") for one in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_each_page_is_in_the_index_and_found_from_the_readme() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.MULTILINE), page.name


def test_pages_are_not_too_long() -> None:
    for page in DOCS:
        assert page.read_text(encoding="utf-8").count("\n") < 500, page.name


@pytest.mark.parametrize("page", [p for p in DOCS if p.stem != "python-api"], ids=lambda p: p.name)
def test_python_in_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for text in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(text, page.name, "exec"), names)


def test_the_picture_shows_the_spec(golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = nldsl.load("specs/hope.nl")
    golden(ROOT / "docs" / "pictures" / "hope-levels.svg", render(spec.levels(), "svg"))


# --------------------------------------------------------------------------- words


def banned() -> dict[str, str]:
    """The words that the glossary says are not used, each with the word that is."""
    found: dict[str, str] = {}
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for word, _, others in re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*)\|$", text, re.MULTILINE):
        for other in filter(None, (o.strip() for o in others.split(","))):
            if word not in ("word", "---"):
                found[other] = word
    return found


def texts() -> dict[str, str]:
    """What people read: pages, explain pages, and the strings of the modules that make messages."""
    found = {
        str(p.relative_to(ROOT)): prose(p.read_text(encoding="utf-8")) for p in DOCS if p.stem != "glossary"
    }
    for page in (ROOT / "nldsl" / "diagnostics" / "explain").glob("*.md"):
        found[page.name] = prose(page.read_text(encoding="utf-8"))
    for room in ("checks", "resolve", "syntax", "cli", "run", "levels"):
        for path in (ROOT / "nldsl" / room).rglob("*.py"):
            found[os.fspath(path.relative_to(ROOT))] = "\n".join(
                strings(ast.parse(path.read_text(encoding="utf-8")))
            )
    return found


def strings(tree: ast.AST) -> list[str]:
    """The string constants of a module that hold words, docstrings aside."""
    said = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and " " in node.value
        and id(node) not in said
    ]


def test_the_glossary_bans_words() -> None:
    assert len(banned()) >= 12


def test_words_are_those_of_the_glossary() -> None:
    wrong = [
        f"{where}: `{word}`, which is called `{right}`"
        for where, text in texts().items()
        for word, right in banned().items()
        if re.search(rf"\b{re.escape(word)}s?\b", text, re.IGNORECASE)
    ]
    assert wrong == []
