"""Kernels for a build: definitions taken from the engines' own source, with all they need and nothing else.

The engines are tested where they stand; a build gets their text, comments included.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Definition:
    """A top-level definition: where it stands, its text, the names it uses."""

    name: str
    module: str
    order: int
    text: str
    uses: frozenset[str]


@dataclass(slots=True)
class Engine:
    """One engine file, read as text."""

    module: str
    docstring: str
    imports: dict[str, str] = field(default_factory=dict)  # bound name -> import line
    siblings: dict[str, str] = field(default_factory=dict)  # bound name -> module
    definitions: dict[str, Definition] = field(default_factory=dict)


@cache
def read(module: str) -> Engine:
    """The engine file `module`, taken apart."""
    text = files("nldsl.codegen.engines").joinpath(f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.split("\n")
    engine = Engine(module, ast.get_docstring(tree) or "")
    previous_end = 0
    for order, node in enumerate(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _imported(node, engine)
        elif (bound := _bound(node)) is not None:
            first = _with_comments(lines, _first_line(node), previous_end)
            source = "\n".join(lines[first - 1 : node.end_lineno])
            uses = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name)) | _annotations(node)
            engine.definitions[bound] = Definition(bound, module, order, source, uses - {bound})
        previous_end = node.end_lineno or previous_end
    return engine


def _annotations(node: ast.stmt) -> frozenset[str]:
    """Names inside quoted annotations are used too."""
    found: set[str] = set()
    for inner in ast.walk(node):
        if (
            isinstance(inner, ast.arg)
            and isinstance(inner.annotation, ast.Constant)
            and isinstance(inner.annotation.value, str)
        ):
            found |= {n.id for n in ast.walk(ast.parse(inner.annotation.value)) if isinstance(n, ast.Name)}
    return frozenset(found)


def _imported(node: ast.Import | ast.ImportFrom, engine: Engine) -> None:
    for alias in node.names:
        bound = alias.asname or alias.name.split(".")[0]
        spelled = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
        if isinstance(node, ast.Import):
            engine.imports[bound] = f"import {spelled}"
        elif node.module and node.module.startswith("nldsl.codegen.engines"):
            engine.siblings[bound] = node.module.rsplit(".", 1)[-1]
        elif node.module and node.module != "__future__":
            engine.imports[bound] = f"from {node.module} import {spelled}"


def _bound(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return None


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _with_comments(lines: list[str], first: int, after: int) -> int:
    """The first line of the comments that stand right above a definition (rulers left out)."""
    while first - 1 > after and lines[first - 2].startswith("#") and not lines[first - 2].startswith("# ---"):
        first -= 1
    return first


@cache
def kernel_names() -> frozenset[str]:
    """Every name that the engines define; no part of a generated model may take one."""
    modules = (
        entry.name.removesuffix(".py")
        for entry in files("nldsl.codegen.engines").iterdir()
        if entry.name.endswith(".py")
    )
    return frozenset(name for module in modules for name in read(module).definitions)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a build's `kernels.py` holds."""

    imports: tuple[str, ...]
    sections: tuple[tuple[str, str, tuple[Definition, ...]], ...]  # module, docstring, definitions
    names: tuple[str, ...]


def collect(wanted: dict[str, str]) -> Kernels:
    """Everything that `wanted` (name -> engine file) needs, engines before those that use them."""
    found: dict[tuple[str, str], Definition] = {}
    imports: dict[str, str] = {}
    order: list[str] = []

    def need(name: str, module: str) -> None:
        engine = read(module)
        if (module, name) in found:
            return
        definition = engine.definitions[name]
        found[(module, name)] = definition
        for used in sorted(definition.uses):
            if used in engine.definitions:
                need(used, module)
            elif used in engine.siblings:
                need(used, engine.siblings[used])
            elif used in engine.imports:
                imports[used] = engine.imports[used]
        if module not in order:
            order.append(module)

    for name, module in wanted.items():
        need(name, module)
    order = _dependencies_first(order, found)
    sections = tuple(
        (
            module,
            read(module).docstring,
            tuple(sorted((d for d in found.values() if d.module == module), key=lambda d: d.order)),
        )
        for module in order
    )
    return Kernels(tuple(sorted(set(imports.values()))), sections, tuple(sorted(wanted)))


def _dependencies_first(modules: list[str], found: dict[tuple[str, str], Definition]) -> list[str]:
    done: list[str] = []

    def visit(module: str) -> None:
        if module in done:
            return
        engine = read(module)
        for definition in (d for d in found.values() if d.module == module):
            for used in sorted(definition.uses):
                if used in engine.siblings and engine.siblings[used] != module:
                    visit(engine.siblings[used])
        if module not in done:
            done.append(module)

    for module in sorted(modules):
        visit(module)
    return done
