"""The walls between the parts: who may import what.  Read from the source, so a lazy import counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FRONT = (
    "nldsl/syntax",
    "nldsl/document",
    "nldsl/resolve",
    "nldsl/levels",
    "nldsl/checks",
    "nldsl/diagnostics",
)

# Modules that reach outside the process or the disk.  `importlib.resources` stays free: the explain
# pages and the grammar are parts of the package, not input.
OUTSIDE = (
    "glob", "http", "io", "os", "pathlib", "requests", "shutil", "socket", "subprocess", "tempfile",
    "urllib.request",
)  # fmt: skip


@dataclass(frozen=True)
class Wall:
    """Modules below `folder` import none of `banned`, or, where `only` is given, nothing else."""

    folder: str
    banned: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    why: str = ""


WALLS = (
    *(Wall(f, banned=("torch",), why="the front end answers without torch") for f in FRONT),
    *(
        Wall(f, banned=OUTSIDE, calls=("open", "input"), why="the front end is handed its text")
        for f in FRONT
    ),
    *(
        Wall(f, banned=("nldsl.run", "nldsl.cli", "nldsl.ablate", "nldsl.codegen"), why="data flows one way")
        for f in FRONT
    ),
    Wall("codegen", banned=("lark", "ruamel", "nldsl.syntax"), why="codegen gets a checked graph, no text"),
    Wall("codegen", banned=("nldsl.cli", "nldsl.run", "nldsl.ablate"), why="data flows one way"),
    Wall("codegen/plan", banned=("torch",), why="planning needs no tensor"),
    Wall("codegen/emit", banned=("torch",), why="printing needs no tensor"),
    Wall("codegen/engines", only=("torch",), why="engines are copied into folders that run without nldsl"),
    Wall(
        "codegen/runtime",
        only=("torch", "numpy", "safetensors", "tokenizers"),
        why="the runtime runs without nldsl",
    ),
    Wall("grammar", banned=("torch", "nldsl.codegen"), why="a grammar is data"),
    Wall("nldsl/data", only=("nldsl",), why="a corpus is read with the standard library"),
)


# What the compiler writes beside the runtime's files; they import one another by plain names.
WRITTEN = ("kernels", "model", "settings")


def absolute_name(node: ast.ImportFrom, module: str) -> str:
    """What a `from` import names, with the dots of a relative import resolved against `module`."""
    if node.level == 0:
        return node.module or ""
    base = module.split(".")[: -node.level]
    return ".".join([*base, node.module] if node.module else base)


def imported_names(tree: ast.AST, module: str) -> list[tuple[int, str]]:
    """Line and full name of every import, `from a import b` as `a.b`, at any depth."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute_name(node, module)
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def is_below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def is_pure_path(name: str) -> bool:
    """`PurePath` and its kin only do arithmetic on names."""
    return name.startswith("pathlib.Pure")


def breaches(source: str, module: str, wall: Wall, neighbours: tuple[str, ...] = ()) -> list[str]:
    """Every import and call in `source` that `wall` does not let through, as `line: what`.

    `neighbours` are modules that an `only` wall lets through by their plain names.
    """
    tree = ast.parse(source)
    package = module.rpartition(".")[0]
    found: list[str] = []
    for line, name in imported_names(tree, module):
        if any(is_below(name, banned) for banned in wall.banned) and not is_pure_path(name):
            found.append(f"{line}: import of {name}")
        top = name.split(".")[0]
        allowed = top in sys.stdlib_module_names or top in neighbours or is_below(name, package)
        if wall.only and not allowed and not any(is_below(name, parent) for parent in wall.only):
            found.append(f"{line}: import of {name}")
    calls = ((node.lineno, node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = ((line, function.id) for line, function in calls if isinstance(function, ast.Name))
    return [*found, *(f"{line}: call of {name}" for line, name in names if name in wall.calls)]


def module_name(path: Path) -> str:
    """The dotted name by which a file of the tree is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    prefix = () if parts[0] == "nldsl" else ("nldsl",)
    # An `__init__` keeps its last part, so that one leading dot always means the folder it stands in.
    return ".".join([*prefix, *parts])


@pytest.mark.parametrize("wall", WALLS, ids=lambda w: f"{w.folder}-{(w.banned or w.only)[0]}")
def test_wall_stands(wall: Wall) -> None:
    files = sorted((ROOT / wall.folder).rglob("*.py"))
    assert files
    neighbours = (*WRITTEN, *(path.stem for path in files)) if wall.folder == "codegen/runtime" else ()
    found = [
        f"{path.relative_to(ROOT)}:{breach} ({wall.why})"
        for path in files
        for breach in breaches(path.read_text(encoding="utf-8"), module_name(path), wall, neighbours)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "wall", "expected"),
    [
        ("import torch", Wall("x", banned=("torch",)), ["1: import of torch"]),
        ("def f():\n    from torch import nn", Wall("x", banned=("torch",)), ["2: import of torch.nn"]),
        ("import torchdata", Wall("x", banned=("torch",)), []),
        ("from . import cli", Wall("x", banned=("nldsl.a.cli",)), ["1: import of nldsl.a.cli"]),
        ("from ..run import go", Wall("x", banned=("nldsl.run",)), ["1: import of nldsl.run.go"]),
        ("from pathlib import PurePosixPath", Wall("x", banned=OUTSIDE), []),
        ("from pathlib import Path", Wall("x", banned=OUTSIDE), ["1: import of pathlib.Path"]),
        ("import math, torch, einops", Wall("x", only=("torch",)), ["1: import of einops"]),
        ("from .scan import scan", Wall("x", only=("torch",)), []),
        ("from nldsl.run import go", Wall("x", only=("torch",)), ["1: import of nldsl.run.go"]),
        ("open('a')", Wall("x", calls=("open",)), ["1: call of open"]),
    ],
)  # fmt: skip
def test_a_breach_is_seen(source: str, wall: Wall, expected: list[str]) -> None:
    assert expected == breaches(source, "nldsl.a.b", wall)


def test_neighbours_pass_by_their_plain_names() -> None:
    wall = Wall("x", only=("torch",))
    assert breaches("from schedule import Clock", "nldsl.a.b", wall, ("schedule",)) == []
    assert breaches("from schedule import Clock", "nldsl.a.b", wall) == ["1: import of schedule.Clock"]


def test_front_end_loads_without_torch() -> None:
    """What the walls say of single files, measured on the whole: nothing pulls torch in by a detour."""
    folders = (*FRONT, "codegen/plan", "codegen/emit", "nldsl/cli")
    modules = [
        module_name(p) for f in folders for p in sorted((ROOT / f).rglob("*.py")) if p.name != "__main__.py"
    ]
    modules = [name.removesuffix(".__init__") for name in modules]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
