"""Each spec in the README and in docs/ does what the page says: it compiles, or it gives the finding."""

from __future__ import annotations

from pathlib import Path

import pytest

import nldsl
from nldsl.document import model as doc

from .blocks import Block, blocks

BLOCKS = blocks()


def name(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=name)
def test_a_page_gives_the_findings_it_names(block: Block) -> None:
    found = nldsl.check_source(block.source)
    assert [d.code for d in found] == block.wanted, [f"{d.code} {d.message}: {d.help}" for d in found]


@pytest.mark.parametrize("block", [b for b in BLOCKS if not b.wanted], ids=name)
def test_a_page_shows_specs_that_compile(block: Block, tmp_path: Path) -> None:
    spec = nldsl.load(block.source)
    if not any(isinstance(d, doc.Model) for d in spec.document.declarations):
        return
    spec.compile(tmp_path / "build")
    text = (tmp_path / "build" / "model.py").read_text(encoding="utf-8")
    compile(text, "model.py", "exec")
