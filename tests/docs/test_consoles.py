"""Commands in the pages print what the pages say, and exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from nldsl.cli.verb_table import VERBS as TABLE

from .blocks import ROOT
from .consoles import PAGES, commands, replayed

VERBS = {verb.name for verb in TABLE}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_consoles_print_what_the_page_says(page: Path, tmp_path: Path, golden) -> None:
    golden(page, replayed(page.read_text(encoding="utf-8"), tmp_path))


def test_every_verb_that_a_page_names_exists() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`nldsl ([a-z]+)\b", text)) | {
            shlex.split(c)[1] for c in commands(text) if c.startswith("nldsl ")
        }
        assert named - {"version"} <= VERBS, page.name


def test_every_make_target_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        named = re.findall(r"(?:`|^    |^\$ )make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, page.name
