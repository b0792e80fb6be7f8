"""Expressions with one part of them changed: what stands at the end of a path, or goes away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from nldsl.document import expr as e
from nldsl.resolve.calls import function_name
from nldsl.resolve.data import DATA_KINDS
from nldsl.resolve.modules import Module
from nldsl.resolve.primitives import PRIMITIVES
from nldsl.resolve.rules import SCHEDULES

Change = Callable[[e.Expr | None], e.Expr | None]
"""From the old value (None where there was none) to the new one (None to remove)."""


@dataclass(frozen=True, slots=True)
class NoSuchPath(Exception):
    """Nothing is called `part`; `candidates` are."""

    part: str
    candidates: tuple[str, ...]


class _Removed(e.Expr):
    """Stands for an expression that goes away."""


REMOVED = _Removed()


def rewrite(node: e.Expr, parts: list[str], module: Module, change: Change) -> e.Expr:
    """`node` with the part at `parts` changed; `REMOVED` if the whole node goes away."""
    if not parts:
        new = change(node)
        return REMOVED if new is None else new
    if isinstance(node, e.Call):
        known = arguments_known(node.function.text, module)
        index = next((i for i, a in enumerate(node.arguments) if a.name == parts[0]), None)
        if index is None and known is not None and parts[0] in known:
            index = next(
                (i for i, a in enumerate(node.arguments) if a.name is None and i == known.index(parts[0])),
                None,
            )
        if index is not None:
            return _argument(node, index, parts, module, change)
        if known is not None and parts[0] in known and len(parts) == 1:
            new = change(None)
            return (
                node if new is None else replace(node, arguments=(*node.arguments, e.Argument(new, parts[0])))
            )
    if isinstance(node, e.Name) and len(parts) == 1:
        known = arguments_known(node.text, module)
        if known is not None and parts[0] in known:
            new = change(None)
            return node if new is None else e.Call(node, (e.Argument(new, parts[0]),), span=node.span)
    return _descend(node, parts, module, change)


def _argument(node: e.Call, index: int, parts: list[str], module: Module, change: Change) -> e.Call:
    old = node.arguments[index]
    new = rewrite(old.value, parts[1:], module, change)
    rest = list(node.arguments)
    if new is REMOVED:
        del rest[index]
    else:
        rest[index] = replace(old, value=new)
    return replace(node, arguments=tuple(rest))


def arguments_known(name: str, module: Module) -> list[str] | None:
    """The names of the arguments that a call of `name` takes, in order."""
    found = module.lookup(name)
    if found is not None and hasattr(found[0], "parameters"):
        return [p.name for p in found[0].parameters]  # type: ignore[attr-defined]
    if name in PRIMITIVES:
        return [t.name for t in PRIMITIVES[name].takes]
    if name in SCHEDULES:
        return list(SCHEDULES[name])
    rule = module.rule(name)
    if rule is not None:
        return [p.name for p in rule[0].parameters]
    return list(DATA_KINDS[name]) if name in DATA_KINDS else None


def matches(node: e.Expr, part: str) -> bool:
    """Whether a part of a path means this call, name or phrase."""
    return function_name(node) == part or (isinstance(node, e.Phrase) and node.head == part)


def _descend(node: e.Expr, parts: list[str], module: Module, change: Change) -> e.Expr:
    seen: list[str] = list(arguments_known(function_name(node) or "", module) or ())
    for child in node.children():
        if isinstance(child, e.Name) and isinstance(node, e.Call):
            continue
        if (
            isinstance(child, e.Statement)
            and isinstance(child.target, e.Name)
            and child.target.text == parts[0]
        ):
            new = rewrite(child.value, parts[1:], module, change)
            return _rebuilt(node, child, REMOVED if new is REMOVED else replace(child, value=new))
        if matches(child, parts[0]):
            if isinstance(child, e.Phrase) and len(parts) == 1 and change(child) is None:
                return _rebuilt(node, child, child.words[1] if len(child.words) > 1 else REMOVED)
            return _rebuilt(node, child, rewrite(child, parts[1:], module, change))
        try:
            return _rebuilt(node, child, _descend(child, parts, module, change))
        except NoSuchPath as problem:
            seen += problem.candidates
            name = function_name(child) or (child.head if isinstance(child, e.Phrase) else None)
            seen += [name] if name else []
    raise NoSuchPath(parts[0], tuple(dict.fromkeys(seen)))


def _rebuilt(node: e.Expr, old: e.Expr, new: e.Expr) -> e.Expr:
    if new is REMOVED:
        return _without(node, old)
    changes: dict[str, object] = {}
    for f in fields(node):
        value = getattr(node, f.name)
        if value is old:
            changes[f.name] = new
        elif isinstance(value, tuple) and any(v is old for v in value):
            changes[f.name] = tuple(new if v is old else v for v in value)
    return replace(node, **changes)  # type: ignore[arg-type]


def _without(node: e.Expr, old: e.Expr) -> e.Expr:
    """`node` when one of its parts goes away: a term leaves its sum, a stage its pipeline."""
    match node:
        case e.Binary(op="+" | "-" | "*" | "/", left=left, right=right):
            return right if left is old else left
        case e.Pipe(source=source, stages=stages):
            if source is old:
                return REMOVED
            rest = tuple(s for s in stages if s is not old)
            return e.Pipe(source, rest, span=node.span) if rest else source
        case e.ListOf(items=items):
            return e.ListOf(tuple(i for i in items if i is not old), span=node.span)
        case e.Body(statements=statements):
            return replace(node, statements=tuple(s for s in statements if s is not old))
        case e.Phrase(words=words):
            return e.Phrase(tuple(w for w in words if w is not old), span=node.span)
        case _:
            return REMOVED
