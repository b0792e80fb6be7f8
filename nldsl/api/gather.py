"""The declarations that one model needs, from all files, under names that do not collide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve import Module
from nldsl.resolve.optimizers import rules_named

Declared = doc.Let | doc.Memory | doc.Optimizer | doc.Block | doc.Model | doc.Train


@dataclass(slots=True)
class Gathered:
    """Declarations in an order in which each comes after what it uses, with the module each stands in."""

    items: list[tuple[Declared, Module]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # id of a declaration -> its name in one file

    def renamed(self, declaration: Declared, module: Module, node: e.Expr) -> e.Expr:
        """`node`, which stands in `declaration`, with every name as it is called in the one file."""
        own = {p.name for p in getattr(declaration, "parameters", [])}
        return _renamed(node, lambda name: self._name(name, own, declaration, module))

    def _name(self, name: e.Name, own: set[str], declaration: Declared, module: Module) -> e.Name:
        for length in range(len(name.parts), 0, -1):
            head = name.parts[:length]
            if head[0] in own:
                return name
            found = _meant(".".join(head), declaration, module)
            if found is not None and id(found[0]) in self.names:
                return replace(name, parts=(self.names[id(found[0])], *name.parts[length:]))
        return name


def gather(module: Module, base: doc.Train | doc.Model | None) -> Gathered:
    """What `base` needs, or without one, everything that the file itself declares and needs."""
    gathered = Gathered()
    roots = (
        [base] if base is not None else [d for d in module.document.declarations if isinstance(d, Declared)]
    )
    done: set[int] = set()

    def visit(declaration: Declared, where: Module) -> None:
        if id(declaration) in done:
            return
        done.add(id(declaration))
        for found, place in used(declaration, where):
            visit(found, place)
        gathered.items.append((declaration, where))

    for root in roots:
        visit(root, module)
    _name_all(gathered)
    return gathered


def used(declaration: Declared, module: Module) -> Iterator[tuple[Declared, Module]]:
    """The declarations that a declaration mentions, in the order in which it does."""
    own = {p.name for p in getattr(declaration, "parameters", [])}
    for name in mentioned(declaration):
        for length in range(len(name.parts), 0, -1):
            if name.parts[0] in own:
                break
            found = _meant(".".join(name.parts[:length]), declaration, module)
            if found is not None and isinstance(found[0], Declared):
                yield found[0], found[1]
                break


def _meant(name: str, declaration: Declared, module: Module) -> tuple[object, Module] | None:
    """The declaration that a name in another one means."""
    return module.rule(name) if name in rules_named(declaration) else module.lookup(name)


def mentioned(declaration: Declared) -> Iterator[e.Name]:
    """Every name in the values of a declaration."""
    for value in values(declaration):
        yield from (n for n in value.walk() if isinstance(n, e.Name))


def values(node: Any) -> Iterator[e.Expr]:
    """Every expression below a node of the document."""
    if isinstance(node, e.Expr):
        yield node
    elif isinstance(node, doc.Node):
        for name in type(node).model_fields:
            if name not in ("span", "name_span", "field_spans", "path_span"):
                yield from values(getattr(node, name))
    elif isinstance(node, dict):
        for one in node.values():
            yield from values(one)
    elif isinstance(node, list | tuple):
        for one in node:
            yield from values(one)


def _name_all(gathered: Gathered) -> None:
    """Each its own name, unless another declaration has it or a file means something else by it."""
    meant: dict[str, set[int | None]] = {}
    for declaration, module in gathered.items:
        own = {p.name for p in getattr(declaration, "parameters", [])}
        for name in mentioned(declaration):
            if name.parts[0] not in own:
                found = _meant(name.parts[0], declaration, module)
                meant.setdefault(name.parts[0], set()).add(id(found[0]) if found is not None else None)
    taken: set[str] = set()
    for declaration, _ in reversed(gathered.items):  # the root keeps its name
        name, number = declaration.name, 1
        while name in taken or not meant.get(name, set()) <= {id(declaration)}:
            number += 1
            name = f"{declaration.name}_{number}"
        taken.add(name)
        gathered.names[id(declaration)] = name


def _renamed(node: e.Expr, rename: Any) -> e.Expr:
    if isinstance(node, e.Name):
        return rename(node)
    changes: dict[str, Any] = {}
    for one in fields(node):
        value = getattr(node, one.name)
        if isinstance(value, e.Expr):
            if isinstance(node, e.Statement) and one.name in ("target", "label"):
                continue
            new = _renamed(value, rename)
            if new is not value:
                changes[one.name] = new
        elif isinstance(value, tuple) and any(isinstance(v, e.Expr) for v in value):
            new_items = tuple(_renamed(v, rename) if isinstance(v, e.Expr) else v for v in value)
            if any(a is not b for a, b in zip(value, new_items, strict=True)):
                changes[one.name] = new_items
    return replace(node, **changes) if changes else node
