"""No engine, plan or emitter knows a system by its name: engines are chosen by algebra."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "codegen").rglob("*.py"))
SYSTEMS = """
    deltanet gateddeltanet gated_delta deltaproduct retnet retention titans hope mamba mamba2 rwkv rwkv7
    gla kda kimi longhorn mesanet mesa moneta yaad memora miras atlas omega omeganet ttt tttlinear tttmlp
    samba transformer selfmodifyingtitans continuum comba
    memoryascontext memoryasgate memoryaslayer continuumnested continuumindependent continuumsequence
""".split()
WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(SYSTEMS)})(?![a-z0-9])", re.IGNORECASE)


def parts(name: str) -> str:
    """An identifier as words: `GatedDeltaNet` and `gated_delta_net` are both `gated delta net`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name)


def said(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every identifier and string of a module but its docstrings, with its line."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    remarks = {  # a string below an assignment documents it
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in docstrings | remarks:
            yield line, text
        for field in ("id", "name", "attr", "arg", "module", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield line, value


def found(text: str) -> list[tuple[int, str]]:
    """Names of systems in the identifiers and strings of a module."""
    hits = []
    for line, one in said(ast.parse(text)):
        for spelled in (one, parts(one), parts(one).replace(" ", "")):
            if WORD.search(spelled):
                hits.append((line, one))
                break
    return hits


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_system_is_known_by_name(path: Path) -> None:
    assert found(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        'if name == "DeltaNet":\n    pass\n',
        "def gated_delta(x):\n    return x\n",
        "class Mamba2: ...\n",
        "is_hope = 1\n",
        'x = core.name.startswith("Titans")\n',
    ],
)
def test_a_name_would_be_found(text: str) -> None:
    assert found(text) != []


def test_sources_may_be_cited() -> None:
    assert found('"""Titans, Eq. 13-14."""\n\ndef f():\n    """As in RetNet."""\n    # DeltaNet\n') == []


def test_the_library_is_among_the_names() -> None:
    library = {path.stem.lower() for path in (ROOT / "nldsl" / "lib").glob("*.nl")}
    plain = {
        "linearattention",
        "softmaxattention",
        "oja",
        "momentumdelta",
        "selfmodifying",
    }  # words of the field
    assert library - plain <= set(SYSTEMS)
