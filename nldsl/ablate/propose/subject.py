"""What proposals are made from: the parts that a run uses, where each is used, and what it became."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.graph import LevelGraph
from nldsl.resolve.calls import function_name
from nldsl.resolve.choices import chosen_fields
from nldsl.resolve.core import Core
from nldsl.resolve.expanded import ChainInstance, Expanded, MemoryInstance, Training
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.lines import flattened
from nldsl.resolve.modules import Module
from nldsl.resolve.scope import Scope, Word

Body = doc.Block | doc.Model


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a block or model; `path` is its own, None where it has no name that a path could say."""

    owner: Body
    module: Module
    statement: e.Statement
    path: str | None

    @property
    def residual(self) -> bool:
        """Whether the line adds something to the stream: `x = x + (x |> ...)`."""
        match self.statement.value:
            case e.Binary(op="+", left=e.Name(parts=("x",))):
                return isinstance(self.statement.target, e.Name) and self.statement.target.text == "x"
            case _:
                return False

    def below(self, name: str) -> str | None:
        """The path of the only stage, part or call `name` of the line; None where it has several or none."""
        if _count(self.statement.value, name) != 1:
            return None
        if self.path is not None:
            return f"{self.path}.{name}"
        alone = sum(_count(s.value, name) for s in flattened(self.owner.body)) == 1
        return f"{self.owner.name}.{name}" if alone else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a memory or block is used: the line, and how it is called there."""

    line: Line
    call: e.Expr

    @property
    def path(self) -> str | None:
        """The path of the use."""
        return self.line.below(function_name(self.call) or "")

    def argument(self, name: str, parameters: list[doc.Parameter]) -> e.Expr | None:
        """The value that the call gives to a parameter, by name or by place; None where it gives none."""
        if not isinstance(self.call, e.Call):
            return None
        named = self.call.get(name)
        if named is not None:
            return named
        place = next((i for i, p in enumerate(parameters) if p.name == name), None)
        given = self.call.positional
        return given[place] if place is not None and place < len(given) else None


@dataclass(frozen=True, slots=True)
class Part:
    """A memory that the model uses.

    `fields` are those of the declaration with every choice by a word made; `instances` what it became, one
    for each use.
    """

    name: str
    declaration: doc.Memory
    module: Module
    fields: dict[str, e.Expr]
    instances: tuple[MemoryInstance | ChainInstance, ...]
    places: tuple[Place, ...]

    @property
    def memory(self) -> MemoryInstance | None:
        """What the first use became, where it learns inside the sequence."""
        first = self.instances[0]
        return first if isinstance(first, MemoryInstance) else None

    @property
    def chain(self) -> ChainInstance | None:
        """What the first use became, where it learns from the task."""
        first = self.instances[0]
        return first if isinstance(first, ChainInstance) else None

    @property
    def core(self) -> Core | None:
        """The algebra of a memory that learns inside the sequence and has weights, None for others."""
        found = self.memory.core if self.memory is not None else None
        return found if found is not None and found.map.kind != "cache" else None

    @property
    def cache(self) -> bool:
        """Whether it is attention: pairs are kept, and nothing learns."""
        return self.memory is not None and self.memory.core.map.kind == "cache"

    def number(self, name: str) -> int | float | None:
        """The value of a parameter in the first use, where it is a number."""
        found = self.instances[0].arguments.get(name)
        return found.value if found is not None else None


@dataclass(frozen=True, slots=True)
class Subject:
    """One run and all that it uses, its variant and settings applied.

    `optimizers` are the rules that its levels name, with the module of each.
    """

    train: doc.Train
    expanded: Expanded
    training: Training
    graph: LevelGraph
    module: Module
    parts: tuple[Part, ...]
    lines: tuple[Line, ...]
    bodies: tuple[tuple[Body, Module], ...]

    def places(self, declaration: doc.Node) -> tuple[Place, ...]:
        """Where a declaration is used."""
        return tuple(_places(self.lines, declaration))

    def rule(self, name: str) -> doc.Optimizer | None:
        """The declaration of a learning rule."""
        found = self.module.rule(name)
        return found[0] if found is not None else None


def subject_of(
    train: doc.Train, expanded: Expanded, training: Training, graph: LevelGraph, module: Module
) -> Subject:
    """The parts of a resolved run; `module` is the amended one.

    Left out are parts whose names mean something else in the spec, or several things: no path leads there.
    """
    from nldsl.api.gather import gather

    declared = [(one, where) for one, where in gather(module, train).items if _reachable(one, module)]
    bodies = tuple((one, where) for one, where in declared if isinstance(one, doc.Block | doc.Model))
    lines = tuple(
        Line(body, where, statement, _path(body, statement))
        for body, where in bodies
        for statement in flattened(body.body)
    )
    parts = []
    for one, where in declared:
        found = (
            tuple(i for i, _ in expanded.instances() if i.name == one.name)
            if isinstance(one, doc.Memory)
            else ()
        )
        memories = tuple(i for i in found if isinstance(i, MemoryInstance | ChainInstance))
        if isinstance(one, doc.Memory) and memories:
            places = tuple(_places(lines, one))
            fields = _chosen(one, where, places)
            parts.append(Part(one.name, one, where, fields, memories, places))
    return Subject(train, expanded, training, graph, module, tuple(parts), lines, bodies)


def _reachable(declaration: doc.Node, module: Module) -> bool:
    name = getattr(declaration, "name", "")
    found = module.lookup(name) or module.rule(name) or module.below(name)
    return found is not None and found[0] is declaration


def _path(body: Body, statement: e.Statement) -> str | None:
    """The path of a line: that of its label, of the instance it names, or of the name it binds."""
    name: str | None = None
    target = statement.target
    if statement.label is not None:
        name = statement.label.text
    elif isinstance(target, e.Phrase) and target.head == "let" and isinstance(target.words[-1], e.Name):
        name = target.words[-1].text
    elif isinstance(target, e.Name) and target.text != "x":
        name = target.text
    return f"{body.name}.{name}" if name is not None else None


def _count(node: e.Expr, name: str) -> int:
    """How many stages, parts or phrases of `node` are called `name`."""
    return sum(isinstance(n, e.Name) and n.text == name for n in node.walk())


def _places(lines: tuple[Line, ...], declaration: doc.Node) -> Iterator[Place]:
    for line in lines:
        for call in _called(line.statement.value):
            called = function_name(call)
            found = line.module.lookup(called) if called is not None else None
            if found is not None and found[0] is declaration:
                yield Place(line, call)


def _called(node: e.Expr) -> Iterator[e.Expr]:
    """Calls and names, each call once and not its function too."""
    functions = {id(n.function) for n in node.walk() if isinstance(n, e.Call)}
    for one in node.walk():
        if isinstance(one, e.Call) or (isinstance(one, e.Name) and id(one) not in functions):
            yield one


def _chosen(memory: doc.Memory, module: Module, places: tuple[Place, ...]) -> dict[str, e.Expr]:
    """The fields with every choice by a word made as in the first use."""
    words: dict[str, Word] = {}
    for parameter in memory.parameters:
        value = places[0].argument(parameter.name, memory.parameters) if places else None
        value = value or parameter.default
        if isinstance(value, e.Name) and len(value.parts) == 1:
            words[parameter.name] = Word(value.text)
    try:
        return chosen_fields(memory.fields, Scope(module, Findings(), dict(words)))
    except Unresolved:
        return memory.fields
