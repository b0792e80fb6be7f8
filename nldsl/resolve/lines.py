"""Lines of blocks and models that paths lead to: by label, by the name they bind, by what stands in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.calls import function_name
from nldsl.resolve.modules import Module
from nldsl.resolve.rewriting import REMOVED, Change, NoSuchPath, matches, rewrite


def amend_line(
    declaration: doc.Block | doc.Model, head: str, rest: list[str], module: Module, change: Change
) -> bool:
    """Change what a path means in a body: a line, or what stands in one.  False where it means nothing."""
    parts = [head, *rest]
    if rest and f"{head}.{rest[0]}" in _sides(declaration.body):
        parts = [f"{head}.{rest[0]}", *rest[1:]]
    for step in (_line, _inside):
        new = step(declaration.body, parts, module, change)
        if new is not None:
            declaration.body[:] = new
            return True
    return False


def _line(
    statements: Sequence[e.Statement], parts: list[str], module: Module, change: Change
) -> list[e.Statement] | None:
    """The lines with the one changed that is called `parts[0]`, or None where none is."""
    for index, statement in enumerate(statements):
        if parts[0] in called(statement):
            rest = parts[1:]
            if rest and matches(statement.value, rest[0]):  # `m.Titans.heads` of `let m = Titans(dim)`
                rest = rest[1:]
            new = rewrite(statement.value, rest, module, change)
            return _with(statements, index, replace(statement, value=new) if new is not REMOVED else None)
        body = segments_of(statement)
        inner = _line(body.statements, parts, module, change) if body is not None else None
        if body is not None and inner is not None:
            return _with(statements, index, _rebodied(statement, body, inner))
    return None


def _inside(
    statements: Sequence[e.Statement], parts: list[str], module: Module, change: Change
) -> list[e.Statement] | None:
    """The lines with the first one changed whose value holds the path."""
    for index, statement in enumerate(statements):
        body = segments_of(statement)
        try:
            if body is not None:
                inner = _inside(body.statements, parts, module, change)
                if inner is not None:
                    return _with(statements, index, _rebodied(statement, body, inner))
                continue
            new = rewrite(statement.value, parts, module, change)
        except NoSuchPath:
            continue
        return _with(statements, index, replace(statement, value=new) if new is not REMOVED else None)
    return None


def called(statement: e.Statement) -> list[str]:
    """What a line is called: its label, the instance it names, the name it binds, or the side it uses."""
    names = [statement.label.text] if statement.label is not None else []
    target = statement.target
    if isinstance(target, e.Phrase) and target.head == "let" and isinstance(target.words[-1], e.Name):
        names.append(target.words[-1].text)
    elif isinstance(target, e.Name) and target.text != "x":
        names.append(target.text)
    elif target is None and statement.label is None:
        written = statement.value.stages[-1] if isinstance(statement.value, e.Pipe) else statement.value
        name = function_name(written)
        names += [name] if name is not None and name.endswith(".write") else []
    return names


def _sides(statements: Sequence[e.Statement]) -> set[str]:
    """The `m.read` and `m.write` of a body."""
    names = (n.text for s in statements for n in s.value.walk() if isinstance(n, e.Name))
    return {name for name in names if name.endswith((".read", ".write"))}


def segments_of(statement: e.Statement) -> e.Body | None:
    """The body of `segments(n) { ... }`, None for other lines."""
    value = statement.value
    if statement.target is not None or not isinstance(value, e.Phrase) or len(value.words) != 2:
        return None
    return value.body if function_name(value.words[0]) == "segments" else None


def flattened(statements: Iterable[e.Statement]) -> Iterator[e.Statement]:
    """Lines in order, those of segments after the line that opens them."""
    for statement in statements:
        yield statement
        body = segments_of(statement)
        if body is not None:
            yield from flattened(body.statements)


def _rebodied(statement: e.Statement, body: e.Body, inner: list[e.Statement]) -> e.Statement:
    assert isinstance(statement.value, e.Phrase)
    words = tuple(replace(w, statements=tuple(inner)) if w is body else w for w in statement.value.words)
    return replace(statement, value=replace(statement.value, words=words))


def _with(statements: Sequence[e.Statement], index: int, new: e.Statement | None) -> list[e.Statement]:
    """The lines with one replaced, or taken away."""
    return [*statements[:index], *([new] if new is not None else []), *statements[index + 1 :]]
