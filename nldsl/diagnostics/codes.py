"""The registry of finding codes, read from the pages in `explain/`.

A page `explain/NLxxxx.md` is the only declaration of a code: its first line holds the code and its
kebab name, the line after it the group and the severity, the paragraph after that one sentence
which states the fact.  Pages are read on demand, so that showing one finding reads one page.

>>> parse_page("# NL0101: unclosed-brace\\n\\ngroup: syntax | severity: error\\n\\nA brace is open.\\n").name
'unclosed-brace'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import cast

from nldsl.diagnostics.model import Severity

CODE_PATTERN = re.compile(r"NL\d{4}")
_TITLE = re.compile(r"# (NL\d{4}): ([a-z0-9]+(?:-[a-z0-9]+)*)")
_FACTS = re.compile(r"group: ([a-z][a-z ]*?) \| severity: (error|warning|note)")
HEADINGS = ("## What it means", "## Example", "## How to mend it")


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of finding: `code` is stable for ever, `name` is its kebab name for people."""

    code: str
    name: str
    group: str
    severity: Severity
    summary: str


class PageError(ValueError):
    """An explain page does not have the form the registry is built from."""


def parse_page(text: str) -> Code:
    """The `Code` that a page declares; raises `PageError` saying which part is malformed."""
    lines = text.split("\n")
    title = _TITLE.fullmatch(lines[0])
    if title is None:
        raise PageError(f"the first line is no `# NLxxxx: kebab-name`: {lines[0]!r}")
    facts = _FACTS.fullmatch(lines[2]) if len(lines) > 2 and not lines[1] else None
    if facts is None:
        raise PageError(f"{title[1]}: the third line is no `group: ... | severity: error|warning|note`")
    paragraph: list[str] = []
    for line in lines[4:]:
        if not line.strip() or line.startswith("#"):
            break
        paragraph.append(line.strip())
    if lines[3:4] != [""] or not paragraph:
        raise PageError(f"{title[1]}: no sentence follows the severity line")
    return Code(title[1], title[2], facts[1], cast("Severity", facts[2]), " ".join(paragraph))


@cache
def lookup(code: str) -> Code | None:
    """The registered `Code` of `NLxxxx`, or None where it has no page."""
    text = _page_text(code)
    return parse_page(text) if text is not None else None


@cache
def registry() -> dict[str, Code]:
    """Every code, in order.  Reads all pages; `lookup` reads one."""
    folder = files("nldsl.diagnostics") / "explain"
    stems = (entry.name.removesuffix(".md") for entry in folder.iterdir() if entry.name.endswith(".md"))
    found = (lookup(stem) for stem in sorted(stems) if CODE_PATTERN.fullmatch(stem))
    return {code.code: code for code in found if code is not None}


def find(code_or_name: str) -> Code | None:
    """The code written as `NL0101`, `nl0101` or `unclosed-brace`; None where there is none."""
    if code := lookup(code_or_name.upper()):
        return code
    wanted = code_or_name.lower()
    return next((code for code in registry().values() if code.name == wanted), None)


def page(code_or_name: str) -> str | None:
    """The Markdown page of a code or kebab name, or None where there is none."""
    code = find(code_or_name)
    return _page_text(code.code) if code is not None else None


def name_of(code: str) -> str | None:
    """The kebab name of a code, or None where it has no page."""
    known = lookup(code)
    return known.name if known is not None else None


def _page_text(code: str) -> str | None:
    if not CODE_PATTERN.fullmatch(code):
        return None
    resource = files("nldsl.diagnostics") / "explain" / f"{code}.md"
    return resource.read_text(encoding="utf-8") if resource.is_file() else None
