"""What a check looks at, and how it points at the value that the user wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nldsl.diagnostics.model import Diagnostic, Severity, Source, Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.graph import LevelGraph
from nldsl.levels.outer import Assignment
from nldsl.resolve import alone
from nldsl.resolve.expanded import (
    BlockInstance,
    ChainInstance,
    Expanded,
    Flow,
    MemoryInstance,
    Repeat,
    Training,
    Use,
)
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.instantiate import Builder
from nldsl.resolve.modules import Module

Spot = tuple[Span | None, str]
"""A place and the few words said there; a place that is not known is left out."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A resolved spec with everything made from it.

    `module` is the module as amended, `original` as linked, before amendments (variants and
    ablations start from it).  `memory_bytes` is what the machine has, or None where nobody said.
    """

    expanded: Expanded
    assignment: Assignment
    graph: LevelGraph
    module: Module
    original: Module
    memory_bytes: int | None = None
    _found: list[BlockInstance | MemoryInstance | ChainInstance] = field(
        init=False, default_factory=list, compare=False, repr=False
    )  # made once: many checks ask for them

    @property
    def training(self) -> Training | None:
        return self.expanded.training

    def blocks(self) -> list[BlockInstance]:
        """Every block of the model once, and those that no model uses."""
        return [i for i in self._instances() if isinstance(i, BlockInstance)]

    def memories(self) -> list[MemoryInstance]:
        """Every memory inside the sequence once, and those that no model uses."""
        return [i for i in self._instances() if isinstance(i, MemoryInstance)]

    def chains(self) -> list[ChainInstance]:
        """Every memory that learns from the task once."""
        return [i for i in self._instances() if isinstance(i, ChainInstance)]

    def _instances(self) -> list[BlockInstance | MemoryInstance | ChainInstance]:
        if self._found:
            return self._found
        used = [instance for instance, _ in self.expanded.instances()]
        found = [*used, *_unused(self.module, {i.declared for i in used})]
        by_call: dict[object, BlockInstance | MemoryInstance | ChainInstance] = {}
        for one in found:
            by_call.setdefault((one.path, one.span, _key(one)), one)
        self._found.extend(by_call.values())
        return self._found


def _key(instance: BlockInstance | MemoryInstance | ChainInstance) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(number)) for name, number in instance.arguments.items())


def _unused(module: Module, used: set[Span | None]) -> list[BlockInstance | MemoryInstance | ChainInstance]:
    """Memories of the file that no model uses, at a size where their defaults work."""
    found: list[BlockInstance | MemoryInstance | ChainInstance] = []
    for declaration in module.document.declarations:
        if not isinstance(declaration, doc.Memory | doc.Block) or declaration.where() in used:
            continue
        silent = Findings()
        try:
            found += _below(alone(declaration, module, Builder(silent), silent))
        except Unresolved:
            continue
    return found


def _below(flow: Flow) -> list[BlockInstance | MemoryInstance | ChainInstance]:
    """Every instance in a flow, and in the blocks among them."""
    found: list[BlockInstance | MemoryInstance | ChainInstance] = []
    for node in flow.walk():
        named = isinstance(node, Use) and node.name is not None
        own = (
            (node.instance,) if isinstance(node, Use) else node.instances if isinstance(node, Repeat) else ()
        )
        for instance in () if named else own:
            found += _with_inner(instance)
    return found


def _with_inner(
    instance: BlockInstance | MemoryInstance | ChainInstance,
) -> list[BlockInstance | MemoryInstance | ChainInstance]:
    """An instance and those in it; the instance of a `let` once."""
    found = [instance]
    if isinstance(instance, BlockInstance):
        for one in instance.every_name():
            found += _with_inner(one.instance)
        for line in instance.every_line():
            found += _below(line.flow)
    elif isinstance(instance, ChainInstance):
        found += [level.memory for level in instance.levels if level.memory is not None]
    return found


# --------------------------------------------------------------------------- places


def modules(module: Module) -> list[Module]:
    """A module and all that its imports lead to."""
    found: list[Module] = []
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if any(one is known for known in found):
            continue
        found.append(one)
        waiting += [m for m, _ in one.imported.values()] + list(one.aliases.values())
        waiting += one.rules.loaded.values()
    return found


def library_sources(module: Module) -> list[Source]:
    """The texts of the standard library that a module imports."""
    names = {f"std/{name}" for name in module.library_names}
    return [one.source for one in modules(module) if one.path in names]


def report(
    subject: Subject,
    findings: Findings,
    code: str,
    message: str,
    spots: Sequence[Spot],
    *,
    fallback: Span | None = None,
    help: str | None = None,
    notes: tuple[str, ...] = (),
    severity: Severity = "error",
) -> None:
    """Record a finding whose primary place is the first of `spots`.

    Where that stands in the standard library, `fallback` (the use of the part, in a file of the user)
    comes before it.
    """
    library = library_sources(subject.module)
    known = _distinct((span, text) for span, text in spots if span is not None)
    mine = [spot for spot in known if spot[0].source not in library]
    own = known[0] if known and known[0] in mine else next(iter(mine), None)
    if fallback is not None and (own is None or own is not known[0]):
        own = (fallback, "used here")
    ordered = ([own] if own is not None else []) + [spot for spot in known if spot is not own]
    span, label = ordered[0] if ordered else (None, "")
    findings.add(
        code,
        message,
        span,
        label,
        others=tuple(ordered[1:]),
        help=help,
        notes=notes,
        severity=severity,
    )


def _distinct(spots: Iterable[tuple[Span, str]]) -> list[tuple[Span, str]]:
    seen: list[tuple[Span, str]] = []
    for span, text in spots:
        if all(span != other for other, _ in seen):
            seen.append((span, text))
    return seen


def field_spots(subject: Subject, instance: MemoryInstance, name: str, label: str) -> list[Spot]:
    """The places that decide a field: arguments and defaults of parameters it names, then its value.

    A pipeline is a place of its own, whatever parameters stand in it.
    """
    value, declaration = _field(subject, instance, name)
    if value is None or isinstance(value, e.Pipe):
        return [(instance.fields.get(name), label)]
    given: list[Spot] = []
    defaults: list[Spot] = []
    call = _call(subject, instance)
    parameters = declaration.parameters if declaration is not None else []
    for index, parameter in enumerate(parameters):
        if not any(isinstance(n, e.Name) and n.text == parameter.name for n in value.walk()):
            continue
        argument = _argument(call, parameter.name, index)
        if argument is not None:
            given.append((argument.span, label))
        elif parameter.default is not None and parameter.name != "dim":
            defaults.append((parameter.default.span, label))
    spots = [*given, *defaults]
    return [*spots, (value.span, "used here" if spots else label)]


def _field(subject: Subject, instance: MemoryInstance, name: str) -> tuple[e.Expr | None, doc.Memory | None]:
    for module in modules(subject.module):
        for declaration in module.document.declarations:
            if (
                declaration.name == instance.name
                and isinstance(declaration, doc.Memory)
                and declaration.where() == instance.declared
            ):
                return declaration.fields.get(name), declaration
    return None, None


def _call(subject: Subject, instance: MemoryInstance) -> e.Call | None:
    """The call that used a memory."""
    if instance.span is None:
        return None
    for module in modules(subject.module):
        if module.source != instance.span.source:
            continue
        for declaration in module.document.declarations:
            for statement in declaration.body if isinstance(declaration, doc.Block | doc.Model) else ():
                for node in statement.walk():
                    if isinstance(node, e.Call) and node.span == instance.span:
                        return node
    return None


def _argument(call: e.Call | None, name: str, index: int) -> e.Expr | None:
    if call is None:
        return None
    named = call.get(name)
    if named is not None:
        return named
    positional = call.positional
    return positional[index] if index < len(positional) else None


# --------------------------------------------------------------------------- flows


def errors(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Those findings that stop a spec."""
    return [one for one in found if one.severity == "error"]
