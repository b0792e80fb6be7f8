"""Amendments: `set`, `add`, `remove` and `replace` on paths of a spec.

A path begins at a declaration (`SelfModifying.rate`), at a field of the amended `train` block
(`model.dim`, `steps`) or at one of its levels, and goes on through fields, levels, labels, stages
and arguments.  It must exist: a typo never makes a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import function_name
from nldsl.resolve.data import DATA_KINDS
from nldsl.resolve.fields import FIELDS, LEVEL_FIELDS, SEQUENCE_FIELDS
from nldsl.resolve.findings import Findings
from nldsl.resolve.modules import Module, Rules
from nldsl.resolve.primitives import PRIMITIVES
from nldsl.resolve.rule_memories import FIELDS as MEMORY_FIELDS
from nldsl.resolve.rules import SCHEDULES
from nldsl.resolve.training import TRAIN_FIELDS

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


def copied(module: Module, seen: dict[int, Module] | None = None) -> Module:
    """The module and all it imports, ready to be changed; expressions are shared, they never change."""
    seen = {} if seen is None else seen
    if id(module) in seen:
        return seen[id(module)]
    document = module.document.model_copy(
        update={"declarations": [_copy(d) for d in module.document.declarations]}
    )
    new = Module(module.path, module.source, document, library_names=module.library_names)
    seen[id(module)] = new
    load = module.rules.load
    if load is not None:
        new.rules = Rules(module.rules.names, lambda name: copied(load(name), seen))
    new.imported = {k: (copied(m, seen), n) for k, (m, n) in module.imported.items()}
    new.aliases = {k: copied(m, seen) for k, m in module.aliases.items()}
    return new


def _copy(node: doc.Node) -> doc.Node:
    update: dict[str, object] = {}
    for name in type(node).model_fields:
        value = getattr(node, name)
        if isinstance(value, dict):
            update[name] = dict(value)
        elif isinstance(value, list):
            update[name] = [_copy(v) if isinstance(v, doc.Node) else v for v in value]
        elif isinstance(value, doc.Node):
            update[name] = _copy(value)
    return node.model_copy(update=update)


def apply(
    amendments: list[doc.Amendment], base: doc.Train | doc.Model, module: Module, findings: Findings
) -> None:
    """Change `base` and what it uses, in place (of a copy made by `copied`)."""
    for amendment in amendments:
        amend(amendment, base, module, findings)


def amend(amendment: doc.Amendment, base: doc.Train | doc.Model, module: Module, findings: Findings) -> bool:
    """Apply one amendment; records a finding and returns False when its path matches nothing."""
    parts = amendment.path.split(".")
    value = amendment.value
    existed: list[bool] = []

    def change(old: e.Expr | None) -> e.Expr | None:
        existed.append(old is not None)
        return value if amendment.action in ("set", "add", "replace") else None

    try:
        _walk(parts, base, module, change)
    except NoSuchPath as problem:
        _report(amendment, problem, findings)
        return False
    if amendment.action in ("remove", "replace") and existed == [False]:
        _report(amendment, NoSuchPath(parts[-1], ()), findings)
        return False
    return True


def value_at(path: str, base: doc.Train | doc.Model, module: Module) -> e.Expr | None:
    """The value at a path, None where it is left out; records nothing and changes nothing (of a copy made by
    `copied`).

    Raises `NoSuchPath`.
    """
    found: list[e.Expr | None] = []

    def look(old: e.Expr | None) -> e.Expr | None:
        found.append(old)
        return old

    _walk(path.split("."), base, module, look)
    return found[-1] if found else None


def no_such_path(path: str, problem: NoSuchPath, findings: Findings, place: Span | None = None) -> None:
    """Record that a path matches nothing; one that was asked for outside of any spec has no `place`."""
    _report(amendment("set", path, None, place), problem, findings)


def _report(amendment: doc.Amendment, problem: NoSuchPath, findings: Findings) -> None:
    near = nearest(problem.part, list(problem.candidates))
    prefix = amendment.path.split(problem.part)[0]
    hint = f"maybe `{prefix}{near[0]}`" if near else None
    if hint is None and problem.candidates:
        hint = "known here: " + ", ".join(f"`{c}`" for c in problem.candidates[:12])
    findings.add(
        "NL0601",
        f"the path `{amendment.path}` matches nothing",
        amendment.path_span or amendment.where(),
        f"nothing is called `{problem.part}` here",
        help=hint or "name a part that the spec has",
    )


# --------------------------------------------------------------------------- declarations


def _walk(parts: list[str], base: doc.Train | doc.Model, module: Module, change: Change) -> None:
    head, rest = parts[0], parts[1:]
    if isinstance(base, doc.Train):
        if head in ("train", base.name) and rest:
            _train(rest, base, module, change)
            return
        if head in (*TRAIN_FIELDS, *(level.name for level in base.levels)):
            _train(parts, base, module, change)
            return
    if head in ("model", base.name) and isinstance(base, doc.Model) and rest:
        _declaration(rest, base, module, change)
        return
    found = module.lookup(head) or module.rule(head) or module.below(head)
    if found is None or not rest:
        names = [d.name for d in module.document.declarations if not isinstance(d, doc.Variant | doc.Ablate)]
        fields = list(TRAIN_FIELDS) if isinstance(base, doc.Train) else ["model"]
        raise NoSuchPath(head, (*names, *module.imported, *fields))
    _declaration(rest, found[0], found[1], change)


def _train(parts: list[str], train: doc.Train, module: Module, change: Change) -> None:
    head, rest = parts[0], parts[1:]
    for level in train.levels:
        if level.name == head:
            if not rest and change(e.Name((head,))) is None:
                train.levels.remove(level)
                return
            _fields(rest or [head], level.fields, ("learns", "rule", "update", "reduce"), module, change)
            return
    _fields(parts, train.fields, TRAIN_FIELDS, module, change)


def _declaration(parts: list[str], declaration: object, module: Module, change: Change) -> None:
    head, rest = parts[0], parts[1:]
    if isinstance(declaration, doc.Train):
        _train(parts, declaration, module, change)
        return
    if isinstance(declaration, doc.Let) or not hasattr(declaration, "parameters"):
        raise NoSuchPath(head, ())
    if isinstance(declaration, doc.Memory):
        if head in declaration.fields or (
            head in FIELDS and not any(p.name == head for p in declaration.parameters)
        ):
            _fields(parts, declaration.fields, FIELDS, module, change)
            return
        for level in declaration.chain.levels if declaration.chain else ():
            if level.name == head:
                _level(rest, declaration.chain, level, module, change)
                return
    if isinstance(declaration, doc.Optimizer) and _rule(parts, declaration, module, change):
        return
    if isinstance(declaration, doc.Block | doc.Model):
        known = [name for s in flattened(declaration.body) for name in _called(s)]
        own = head in known or not any(p.name == head for p in declaration.parameters)
        if own and _labelled(declaration, head, rest, module, change):
            return
    for parameter in declaration.parameters:  # type: ignore[attr-defined]
        if parameter.name == head:
            old = parameter.default
            parameter.default = (
                rewrite(old, rest, module, change) if rest and old is not None else change(old)
            )
            return
    raise NoSuchPath(head, tuple(_names(declaration)))


def _rule(parts: list[str], declaration: doc.Optimizer, module: Module, change: Change) -> bool:
    """A value of an optimizer, one of its memories or a field of one, or what it leaves weights to."""
    head, rest = parts[0], parts[1:]
    if head in declaration.fields:
        _fields(parts, declaration.fields, (), module, change)
        return True
    if head == "otherwise" and declaration.otherwise is not None:
        new = rewrite(declaration.otherwise, rest, module, change)
        declaration.otherwise = None if new is REMOVED else new
        return True
    for memory in declaration.memories:
        if memory.name != head:
            continue
        if rest:
            _fields(rest, memory.fields, MEMORY_FIELDS, module, change)
        elif change(e.Name((head,))) is None:
            declaration.memories.remove(memory)
        else:
            raise NoSuchPath(head, tuple(memory.fields))
        return True
    return False


def _level(
    parts: list[str], chain: doc.Chain | None, level: doc.Level, module: Module, change: Change
) -> None:
    if parts:
        _fields(parts, level.fields, (*LEVEL_FIELDS, *SEQUENCE_FIELDS), module, change)
        return
    if chain is not None and change(e.Name((level.name,))) is None:
        chain.levels.remove(level)
        return
    raise NoSuchPath(level.name, tuple(level.fields))


def _names(declaration: object) -> list[str]:
    names = [p.name for p in getattr(declaration, "parameters", [])]
    names += list(getattr(declaration, "fields", {}))
    names += [memory.name for memory in getattr(declaration, "memories", ())]
    if isinstance(declaration, doc.Memory) and declaration.chain is not None:
        names += [level.name for level in declaration.chain.levels]
    if isinstance(declaration, doc.Block | doc.Model):
        names += [name for s in flattened(declaration.body) for name in _called(s)]
    return list(dict.fromkeys(names))


def _fields(
    parts: list[str], values: dict[str, e.Expr], known: tuple[str, ...], module: Module, change: Change
) -> None:
    head, rest = parts[0], parts[1:]
    if head not in values and (rest or head not in known):
        raise NoSuchPath(head, tuple(dict.fromkeys((*values, *known))))
    old = values.get(head)
    new = rewrite(old, rest, module, change) if rest and old is not None else change(old)
    if new is None or new is REMOVED:
        values.pop(head, None)
    else:
        values[head] = new


def _labelled(
    declaration: doc.Block | doc.Model, head: str, rest: list[str], module: Module, change: Change
) -> bool:
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
        if parts[0] in _called(statement):
            rest = parts[1:]
            if rest and _matches(statement.value, rest[0]):  # `m.Titans.heads` of `let m = Titans(dim)`
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


def _called(statement: e.Statement) -> list[str]:
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


# --------------------------------------------------------------------------- expressions


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


def _matches(node: e.Expr, part: str) -> bool:
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
        if _matches(child, parts[0]):
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


def amendment(action: str, path: str, value: e.Expr | None, span: Span | None) -> doc.Amendment:
    """An amendment made by a program (`--set`, an ablation) rather than written in a spec."""
    return doc.Amendment.model_construct(action=action, path=path, value=value, span=span, path_span=span)  # type: ignore[arg-type]


def in_words(item: doc.Amendment) -> str:
    """`set model.dim = 64`, as shown to people."""
    if item.action == "remove" or item.value is None:
        return f"remove {item.path}"
    joint = "by" if item.action == "replace" else "="
    return f"{item.action} {item.path} {joint} {print_expr(item.value)}"
