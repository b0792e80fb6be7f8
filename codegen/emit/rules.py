"""`rules.py` of a build: the rules that its levels name as classes, and what these need of the runtime."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.printer import file
from nldsl.codegen.emit.rule_classes import numbers, write_class
from nldsl.codegen.emit.rule_state import class_name
from nldsl.levels.outer import Assignment
from nldsl.resolve.algorithm import Algorithm

__all__ = ["Forms", "algorithms", "numbers", "write"]

_LAST = ("make", "_near")  # they stand behind the rules
_ALWAYS = ("Parameters", "Tensors", "Group", "Memory", "Lists", "Rule")


def algorithms(assignment: Assignment) -> list[Algorithm]:
    """The rules of the levels that learn, in their order."""
    rules = (level.declared.rule for level in assignment.levels if level.clock.unit != "never")
    return [rule.algorithm for rule in rules if rule.algorithm is not None]


class Forms:
    """The rules of a build by name: rules of one form are one class, and others of its name are numbered."""

    def __init__(self, algorithms: Iterable[Algorithm]) -> None:
        self.named: dict[str, Algorithm] = {}
        for one in algorithms:
            self._add(one)

    def _add(self, algorithm: Algorithm) -> None:
        if self._found(algorithm) is not None:
            return
        if algorithm.otherwise is not None:
            self._add(algorithm.otherwise)
        name, number = algorithm.name, 1
        classes = {class_name(one) for one in self.named}
        while class_name(name) in classes:
            number += 1
            name = f"{algorithm.name}_{number}"
        self.named[name] = algorithm

    def _found(self, algorithm: Algorithm) -> str | None:
        form = algorithm.form
        return next((name for name, one in self.named.items() if one.form == form), None)

    def name(self, algorithm: Algorithm) -> str:
        """The name by which `make` knows a rule of this form; raises `KeyError` for one that is not here."""
        found = self._found(algorithm)
        if found is None:
            raise KeyError(algorithm.name)
        return found


def write(algorithms: Sequence[Algorithm], header: str) -> str:
    """The text of `rules.py` for the rules of a run, in the order given.

    `make(name, ...)` in it takes the names of `Forms(algorithms)`.
    """
    forms = Forms(algorithms)
    made = {
        name: write_class(one, name, forms.name(one.otherwise) if one.otherwise is not None else None)
        for name, one in forms.named.items()
    }
    wanted = {*_ALWAYS, *_LAST, *(helper for one in made.values() for helper in one.helpers)}
    pieces = _closed(wanted)
    first = [piece for piece in pieces if piece not in _LAST]
    body: list[c.Step] = list(_together(first))
    for one in made.values():
        body += one.steps
    rules = c.Mapping(tuple((name, c.name(class_name(name))) for name in forms.named))
    body.append(c.Assign(c.name("RULES"), rules, annotation="dict[str, type[Rule]]"))
    body += _together(_LAST)
    text = "\n".join(_source().definitions[name] for name in pieces)
    imports = {line for one in made.values() for line in one.imports}
    uses_math = any("math." in "\n".join(map(repr, one.steps)) for one in made.values())
    return file(c.File(header, _imports(text, imports, uses_math), tuple(body)))


# --------------------------------------------------------------------------- pieces of the runtime


class _Source:
    """The runtime's `rules.py` taken apart: its definitions in order, and its imports."""

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        self.definitions: dict[str, str] = {}
        self.uses: dict[str, set[str]] = {}
        self.imports: dict[str, str] = {}
        for node in ast.parse(text).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    bound = alias.asname or alias.name
                    spelled = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
                    head = f"from {node.module} import " if isinstance(node, ast.ImportFrom) else "import "
                    self.imports[bound] = head + spelled
                continue
            name = _bound(node)
            if name is None:
                continue
            begin = node.lineno - 1
            while lines[begin - 1].startswith("#"):
                begin -= 1
            self.definitions[name] = "\n".join(lines[begin : node.end_lineno])
            self.uses[name] = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} - {name}


def _bound(node: ast.stmt) -> str | None:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return None


@cache
def _source() -> _Source:
    return _Source(files("nldsl.codegen.runtime").joinpath("rules.py").read_text(encoding="utf-8"))


def _closed(wanted: set[str]) -> list[str]:
    """`wanted` and all that it needs, in the order of the file."""
    source = _source()
    waiting, found = list(wanted), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or name == "RULES":
            continue
        found.add(name)
        waiting += [used for used in source.uses[name] if used in source.definitions]
    return [name for name in source.definitions if name in found]


def _together(names: Iterable[str]) -> Iterator[c.Step]:
    """Definitions as they stand; names of types and constants close together, the rest apart."""
    small: list[str] = []
    for name in names:
        text = _source().definitions[name]
        if text.startswith(("def ", "class ", "@", "#")):
            if small:
                yield c.Verbatim("\n".join(small))
                small = []
            yield c.Verbatim(text)
        else:
            small.append(text)
    if small:
        yield c.Verbatim("\n".join(small))


def _imports(text: str, more: set[str], math: bool) -> tuple[str, ...]:
    """The import lines that the pieces and the classes need."""
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = {line for name, line in _source().imports.items() if name in names and name != "annotations"}
    lines |= {"import torch", *more} | ({"import math"} if math else set())
    plain = sorted(line for line in lines if line.startswith("import "))
    grouped: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("from "):
            module, _, name = line.removeprefix("from ").partition(" import ")
            grouped.setdefault(module, []).append(name)
    froms = [
        f"from {m} import {', '.join(sorted(names_, key=_order))}" for m, names_ in sorted(grouped.items())
    ]
    every = [*plain, *froms]
    torch = [line for line in every if line.split()[1].split(".")[0] == "torch"]
    standard = [line for line in every if line not in torch]
    return (
        "from __future__ import annotations",
        "",
        *standard,
        "",
        *torch,
        "",
        "# Torch's functions over lists have no public names.",
        "# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false",
    )


def _order(name: str) -> tuple[int, str]:
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)
