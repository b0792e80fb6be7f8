"""From documents to the expanded spec: imports linked, variants applied, parameters bound."""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.diagnostics.model import Diagnostic, Source
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve import amend
from nldsl.resolve.calls import function_name
from nldsl.resolve.context import Context
from nldsl.resolve.expanded import (
    Expanded,
    Flow,
    MemoryInstance,
    ModelInstance,
    Num,
    Shape,
    Training,
    Use,
    Variable,
)
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.instantiate import Builder
from nldsl.resolve.modules import Library, Linker, Module, Parse, Reader
from nldsl.resolve.optimizers import check_alone, rules_named
from nldsl.resolve.scope import Scope
from nldsl.resolve.training import train

__all__ = ["Library", "Linker", "Module", "Resolution", "link", "memory", "resolve"]


@dataclass(slots=True)
class Resolution:
    """What came out: the expanded spec (None after errors), the amended module it was made from, and all
    findings.
    """

    expanded: Expanded | None
    module: Module
    base: doc.Train | doc.Model | None
    amendments: list[doc.Amendment] = field(default_factory=list)
    findings: list[Diagnostic] = field(default_factory=list)


def link(
    path: str, source: Source, document: doc.Document, read: Reader | None, parse: Parse, library: Library
) -> tuple[Module, list[Diagnostic]]:
    """The module of a document with all it imports."""
    findings = Findings()
    module = Linker(read, parse, library, findings).link(path, source, document)
    return module, findings.items


def resolve(
    module: Module,
    *,
    variant: str | None = None,
    extra: list[doc.Amendment] | None = None,
    training: Training | None = None,
) -> Resolution:
    """Expand a linked module: its `train` block (or model), as amended by `variant` and `extra`.

    `training`: what the `train` block is but for its model, where that is known; it is not read again.
    """
    findings = Findings()
    try:
        base, chain = _base(module, variant, findings)
    except Unresolved:
        return Resolution(None, module, None, [], findings.items)
    changed = amend.copied(module)
    amendments = [a for v in chain for a in v.amendments] + (extra or [])
    root = changed.document.find(base.name) if base is not None else None
    if root is None and extra:
        for one in extra:
            findings.add(
                "NL0601",
                f"the path `{one.path}` matches nothing",
                one.path_span,
                "there is no `train` block or model to change",
            )
    if root is not None:
        amend.apply(amendments, root, changed, findings)  # type: ignore[arg-type]
    expanded = None if findings.has_errors else _expand(changed, root, variant, findings, training)  # type: ignore[arg-type]
    return Resolution(expanded, changed, root, amendments, findings.items)  # type: ignore[arg-type]


def _base(
    module: Module, variant: str | None, findings: Findings
) -> tuple[doc.Train | doc.Model | None, list[doc.Variant]]:
    """The declaration to expand, and the variants to apply, outermost base first."""
    chain: list[doc.Variant] = []
    if variant is None:
        declarations = module.document.declarations
        trains = [d for d in declarations if isinstance(d, doc.Train)]
        models = [d for d in declarations if isinstance(d, doc.Model)]
        return (trains or models or [None])[0], chain  # type: ignore[list-item]
    name, span = variant, None
    while True:
        found = module.document.find(name)
        if isinstance(found, doc.Train | doc.Model):
            return found, list(reversed(chain))
        if not isinstance(found, doc.Variant):
            known = [
                d.name
                for d in module.document.declarations
                if isinstance(d, doc.Variant | doc.Train | doc.Model)
            ]
            near = nearest(name, known)
            hint = (
                f"maybe `{near[0]}`"
                if near
                else f"the spec has {', '.join(f'`{k}`' for k in known) or 'none'}"
            )
            raise findings.stop(
                "NL0602",
                f"there is no variant or `train` block called `{name}`",
                span,
                "unknown base",
                help=hint,
            )
        if any(found is one for one in chain):  # by identity: comparing documents builds their serialisers
            raise findings.stop(
                "NL0603",
                f"the variant `{found.name}` is based on itself",
                found.base_span or found.where(),
                "closes the cycle",
                help="base it on a `train` block",
            )
        chain.append(found)
        name, span = found.base, found.base_span or found.where()


def _expand(
    module: Module,
    base: doc.Train | doc.Model | None,
    variant: str | None,
    findings: Findings,
    training: Training | None = None,
) -> Expanded | None:
    model: ModelInstance | None = None
    failed = False
    builder = Builder(findings)
    scope = Scope(module, findings)
    if isinstance(base, doc.Train):
        try:
            training = training or train(base, module, findings)
        except Unresolved:
            failed = True
        try:
            model = _train_model(base, module, scope, builder)
        except Unresolved:
            failed = True
    elif isinstance(base, doc.Model):
        try:
            model = builder.model(e.Call(e.Name((base.name,)), ()), base, module, scope)
        except Unresolved:
            failed = True
    _declared_alone(module, builder, findings)
    if failed or findings.has_errors:
        return None
    name = base.name if base is not None else "spec"
    return Expanded(f"{name}-{variant}" if variant and variant != name else name, model, training, variant)


def _train_model(base: doc.Train, module: Module, scope: Scope, builder: Builder) -> ModelInstance:
    findings = scope.findings
    call = base.fields.get("model")
    if call is None:
        raise findings.stop(
            "NL0206",
            f"`{base.name}` has no `model`",
            base.where(),
            "a field is missing",
            help="write `model = MyModel(dim = 64)`",
        )
    name = function_name(call)
    found = module.lookup(name) if name else None
    if found is None or not isinstance(found[0], doc.Model):
        models = [n for n in module.names() if isinstance((module.lookup(n) or (None,))[0], doc.Model)]
        near = nearest(name or "", models)
        hint = (
            f"maybe `{near[0]}`"
            if near
            else f"models known here: {', '.join(f'`{m}`' for m in models) or 'none'}"
        )
        raise findings.stop(
            "NL0200", f"there is no model called `{name}`", call.span, "unknown model", help=hint
        )
    return builder.model(call, found[0], found[1], scope)


def _declared_alone(module: Module, builder: Builder, findings: Findings) -> None:
    """Memories, blocks and rules that nothing uses are still checked, at a size where every default works."""
    named = set().union(*(rules_named(d) for d in module.document.declarations))
    for declaration in module.document.declarations:
        if isinstance(declaration, doc.Optimizer) and declaration.name not in named:
            check_alone(declaration, module, findings)
    used = {n.text.split(".")[0] for d in module.document.declarations for n in _names(d)}
    for declaration in module.document.declarations:
        if isinstance(declaration, doc.Memory | doc.Block) and declaration.name not in used:
            try:
                alone(declaration, module, builder, findings)
            except Unresolved:
                continue


def _names(declaration: doc.Node) -> list[e.Name]:
    found: list[e.Name] = []
    for statement in getattr(declaration, "body", []):
        found += [n for n in statement.walk() if isinstance(n, e.Name)]
    if isinstance(declaration, doc.Train):
        found += [n for v in declaration.fields.values() for n in v.walk() if isinstance(n, e.Name)]
    if isinstance(declaration, doc.Memory):
        found += [n for v in declaration.fields.values() for n in v.walk() if isinstance(n, e.Name)]
    return found


def alone(
    declaration: doc.Memory | doc.Block,
    module: Module,
    builder: Builder,
    findings: Findings,
    dim: int = 64,
    given: tuple[e.Argument, ...] = (),
) -> Use:
    """An instance of a memory or block outside any model; parameters without default that are not `given` get
    `dim`.
    """
    named = {a.name for a in given}
    missing = [p for p in declaration.parameters if p.default is None and p.name not in named]
    arguments = (*(e.Argument(e.Number(dim), p.name) for p in missing), *given)
    width = Num(dim, e.Number(dim))
    x = Variable(Shape("flat", width), "x")
    scope = Scope(module, findings)
    no_names: list[str] = []

    def lookup(_: str) -> Flow | None:
        return None

    context = Context(scope, declaration.name, lookup, lambda: no_names, builder.instantiate)
    return builder.instantiate(
        e.Call(e.Name((declaration.name,)), arguments), declaration, module, x, context
    )


def memory(
    module: Module, name: str, *, dim: int = 64, given: tuple[e.Argument, ...] = ()
) -> tuple[MemoryInstance | None, list[Diagnostic]]:
    """The instance of a memory by name, for calling its core alone; None after errors or if it has no core.

    `given` are arguments of the memory, each with a name.
    """
    findings = Findings()
    found = module.lookup(name)
    if found is None or not isinstance(found[0], doc.Memory):
        memories = [n for n in module.names() if isinstance((module.lookup(n) or (None,))[0], doc.Memory)]
        near = nearest(name, memories)
        findings.add(
            "NL0200",
            f"there is no memory called `{name}`",
            None,
            help=f"maybe `{near[0]}`"
            if near
            else f"known: {', '.join(f'`{m}`' for m in memories) or 'none'}",
        )
        return None, findings.items
    try:
        use = alone(found[0], found[1], Builder(findings), findings, dim, given)
    except Unresolved:
        return None, findings.items
    if not isinstance(use.instance, MemoryInstance):
        findings.add(
            "NL0518",
            f"`{name}` learns from the task, so it has no core of its own",
            found[0].where(),
            help="compile a model that uses it",
        )
        return None, findings.items
    return use.instance, findings.items
