"""The registry of codes: every code has a page, every page a code that is used."""

import re
from pathlib import Path

import pytest

from nldsl.diagnostics import codes

ROOT = Path(__file__).resolve().parents[2]
EXPLAIN = ROOT / "nldsl" / "diagnostics" / "explain"
GROUPS = {
    "00": "files",
    "01": "syntax",
    "02": "names",
    "03": "clocks",
    "04": "shapes",
    "05": "learning",
    "06": "variants",
    "07": "code generation",
    "08": "training",
    "09": "studies",
}
PAGE = "# NL0101: unclosed-brace\n\ngroup: syntax | severity: error\n\nA brace is\nleft open.\n\n## What\n"


def used_codes() -> dict[str, str]:
    """Codes in the source, and a file that uses each."""
    files = [f for folder in ("nldsl", "codegen", "grammar") for f in (ROOT / folder).rglob("*.py")]
    outside = [f for f in files if "diagnostics" not in f.parts or f.name == "suggest.py"]
    quoted = re.compile(r"[\"'](NL\d{4})[\"']")
    return {code: str(f) for f in outside for code in quoted.findall(f.read_text(encoding="utf-8"))}


def pages() -> list[Path]:
    return sorted(EXPLAIN.glob("*.md"))


def test_parse_page() -> None:
    assert codes.parse_page(PAGE) == codes.Code(
        "NL0101", "unclosed-brace", "syntax", "error", "A brace is left open."
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# NL0101: ", "# "),
        ("unclosed-brace", "Unclosed"),
        ("| severity: error", ""),
        ("A brace is\nleft open.\n", ""),
    ],
)
def test_a_malformed_page_is_refused(old: str, new: str) -> None:
    with pytest.raises(codes.PageError):
        codes.parse_page(PAGE.replace(old, new))


def test_every_used_code_has_a_page() -> None:
    missing = {code: file for code, file in used_codes().items() if codes.lookup(code) is None}
    assert missing == {}


def test_every_page_is_of_a_used_code() -> None:
    unused = [page.name for page in pages() if page.stem not in used_codes()]
    assert unused == []


def test_every_page_has_the_form() -> None:
    for file in pages():
        text = file.read_text(encoding="utf-8")
        code = codes.parse_page(text)
        assert file.name == f"{code.code}.md"
        places = [text.find(heading) for heading in codes.HEADINGS]
        assert -1 not in places, f"{file.name} lacks one of {codes.HEADINGS}"
        assert places == sorted(places)
        example = text[places[1] : places[2]]
        assert "```nl" in example or "```text" in example or "```yaml" in example, file.name
        if "```nl" in example:
            assert f"# {code.severity}: {code.code}" in example, f"{file.name}: no line is marked"
        assert text.count("```") % 2 == 0
        assert code.summary.endswith("."), file.name
        assert code.group.startswith(GROUPS[code.code[2:4]].split()[0]), f"{file.name}: group {code.group}"


def test_names_are_unique() -> None:
    names = [code.name for code in codes.registry().values()]
    assert len(set(names)) == len(names)


def test_look_up_by_code_and_name() -> None:
    for code in codes.registry().values():
        assert codes.find(code.code) == codes.find(code.code.lower()) == codes.find(code.name) == code
        assert (codes.page(code.name) or "").startswith(f"# {code.code}: {code.name}\n")
        assert codes.name_of(code.code) == code.name
    assert codes.page("NL9999") is None
    assert codes.page("../model") is None
    assert codes.name_of("NL9999") is None
