"""Amendments: `set`, `add`, `remove` and `replace` on paths of a spec.

A path begins at a declaration (`SelfModifying.rate`), at a field of the amended `train` block
(`model.dim`, `steps`) or at one of its levels, and goes on through fields, levels, labels, stages
and arguments.  It must exist: a typo never makes a field.
"""

from __future__ import annotations

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.fields import FIELDS, LEVEL_FIELDS, SEQUENCE_FIELDS
from nldsl.resolve.findings import Findings
from nldsl.resolve.lines import amend_line, called, flattened
from nldsl.resolve.modules import Module, Rules
from nldsl.resolve.rewriting import REMOVED, Change, NoSuchPath, rewrite
from nldsl.resolve.rule_memories import FIELDS as MEMORY_FIELDS
from nldsl.resolve.training import TRAIN_FIELDS

__all__ = [
    "NoSuchPath",
    "amend",
    "amendment",
    "apply",
    "copied",
    "in_words",
    "no_such_path",
    "value_at",
]

ORDER = "order"
"""The part of a path that means the levels of a chain in depth order."""


class NotAnOrder(Exception):
    """What a chain's order was to become does not have each of its `levels` once."""

    def __init__(self, levels: tuple[str, ...]) -> None:
        super().__init__(levels)
        self.levels = levels


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
    except NotAnOrder as problem:
        _report_order(amendment, problem, findings)
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
    parts = amendment.path.split(".")
    before = parts[: parts.index(problem.part)] if problem.part in parts else []
    hint = f"maybe `{'.'.join([*before, near[0]])}`" if near else None
    if hint is None and problem.candidates:
        hint = "known here: " + ", ".join(f"`{c}`" for c in problem.candidates[:12])
    findings.add(
        "NL0601",
        f"the path `{amendment.path}` matches nothing",
        amendment.path_span or amendment.where(),
        f"nothing is called `{problem.part}` here",
        help=hint or "name a part that the spec has",
    )


def _report_order(amendment: doc.Amendment, problem: NotAnOrder, findings: Findings) -> None:
    levels = ", ".join(problem.levels)
    chain = amendment.path.removesuffix(f".{ORDER}")
    said = f"becomes {print_expr(amendment.value)}" if amendment.value is not None else "is removed"
    findings.add(
        "NL0615",
        f"the order of `{chain}` {said}",
        amendment.value.span if amendment.value is not None else amendment.path_span,
        "not each of its levels once",
        help=f"its levels are `[{levels}]`; `remove {chain}.LEVEL` leaves one out",
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
        parameter = any(p.name == head for p in declaration.parameters)
        if head == ORDER and not rest and declaration.chain is not None and not parameter:
            _order(declaration.chain, change)
            return
    if isinstance(declaration, doc.Optimizer) and _rule(parts, declaration, module, change):
        return
    if isinstance(declaration, doc.Block | doc.Model):
        known = [name for s in flattened(declaration.body) for name in called(s)]
        own = head in known or not any(p.name == head for p in declaration.parameters)
        if own and amend_line(declaration, head, rest, module, change):
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


def _order(chain: doc.Chain, change: Change) -> None:
    """The levels of a chain in another order: all of them, each once."""
    levels = {level.name: level for level in chain.levels}
    wanted = change(e.ListOf(tuple(e.Name((name,)) for name in levels)))
    names = [print_expr(item) for item in wanted.items] if isinstance(wanted, e.ListOf) else []
    if sorted(names) != sorted(levels):
        raise NotAnOrder(tuple(levels))
    chain.levels[:] = [levels[name] for name in names]


def _names(declaration: object) -> list[str]:
    names = [p.name for p in getattr(declaration, "parameters", [])]
    names += list(getattr(declaration, "fields", {}))
    names += [memory.name for memory in getattr(declaration, "memories", ())]
    if isinstance(declaration, doc.Memory) and declaration.chain is not None:
        names += [*(level.name for level in declaration.chain.levels), ORDER]
    if isinstance(declaration, doc.Block | doc.Model):
        names += [name for s in flattened(declaration.body) for name in called(s)]
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


def amendment(action: str, path: str, value: e.Expr | None, span: Span | None) -> doc.Amendment:
    """An amendment made by a program (`--set`, an ablation) rather than written in a spec."""
    return doc.Amendment.model_construct(action=action, path=path, value=value, span=span, path_span=span)  # type: ignore[arg-type]


def in_words(item: doc.Amendment) -> str:
    """`set model.dim = 64`, as shown to people."""
    if item.action == "remove" or item.value is None:
        return f"remove {item.path}"
    joint = "by" if item.action == "replace" else "="
    return f"{item.action} {item.path} {joint} {print_expr(item.value)}"
