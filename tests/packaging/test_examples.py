"""Examples in docstrings do what they show."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nldsl", "codegen/emit", "codegen/engines", "codegen/plan", "grammar")
"""What can be imported under its full name; files of `codegen/runtime` import each other by plain ones."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "nldsl" else ("nldsl", *parts)).removesuffix(".__init__")


def has_examples(path: Path) -> bool:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = [
        ast.get_docstring(node) or ""
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return any(">>> " in text for text in texts)


MODULES = sorted(
    name_of(path)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if has_examples(path) and not {"codegen", "grammar"} & set(path.relative_to(ROOT / package).parts)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed
