"""The examples of the page run, in their order, as one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import nldsl

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")


def test_every_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for found in re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        line = PAGE.count("\n", 0, found.start()) + 1
        exec(compile("\n" * line + found[1], "docs/python-api.md", "exec"), names)


def test_every_public_name_stands_on_the_page() -> None:
    missing = [
        n for n in nldsl.__all__ if f"nldsl.{n}" not in PAGE and n not in ("Core", "Spec", "__version__")
    ]
    assert missing == []
    for member in (n for n in dir(nldsl.Spec) if not n.startswith("_")):
        assert f".{member}" in PAGE or member == "settings", member
