"""The pages of the syntax codes: each example gives its code, on the line that says so, and no other."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from nldsl.diagnostics.model import Source
from nldsl.syntax import read

PAGES = [f"NL{n:04d}" for n in (*range(1, 5), *range(101, 111), *range(120, 134), *range(140, 144))]
EXAMPLE = re.compile(r"```nl\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("code", PAGES)
def test_example_gives_its_code(code: str) -> None:
    page = (files("nldsl.diagnostics") / "explain" / f"{code}.md").read_text(encoding="utf-8")
    example = EXAMPLE.search(page)
    if example is None:
        assert "```text" in page
        return
    text = example.group(1)
    found = [
        (f.code, f.span.source.position(f.span.start)[0])
        for f in read(Source("example.nl", text))[1]
        if f.span
    ]
    lines = [
        i
        for i, line in enumerate(text.split("\n"), 1)
        if line.endswith((f"# error: {code}", f"# warning: {code}"))
    ]
    assert found == [(code, line) for line in lines]
