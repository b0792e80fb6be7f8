"""Which widths a spec has: whole numbers that make it larger or smaller and leave its structure alone.

A width is found by what it does, never by its name.  Every whole number that a path reaches is set to
another value; where the spec then has another size, and is the same in all but the widths of its features,
the path is a width.  The number of layers, of heads, of tokens that a convolution sees, of rows of the
vocabulary, and every clock belong to what has to stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass

from nldsl.ablate.rows import Quantity
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.levels.build import build
from nldsl.levels.graph import LevelGraph
from nldsl.resolve import Resolution, resolve
from nldsl.resolve.amend import amendment, value_at
from nldsl.resolve.calls import function_name
from nldsl.resolve.expanded import (
    Apply,
    BlockInstance,
    ChainInstance,
    Constant,
    Expanded,
    Expression,
    FastWeight,
    Map,
    MemoryInstance,
    ModelInstance,
    Num,
    Shape,
)
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.lines import flattened
from nldsl.resolve.modules import Module
from nldsl.resolve.primitives import PRIMITIVES
from nldsl.resolve.rewriting import NoSuchPath, arguments_known
from nldsl.resolve.scope import Scope

Instance = BlockInstance | MemoryInstance | ChainInstance | ModelInstance

_FREE: dict[type, frozenset[str]] = {
    Shape: frozenset({"width"}),
    MemoryInstance: frozenset({"arguments", "width", "key_width", "value_width"}),
    BlockInstance: frozenset({"arguments", "width"}),
    ChainInstance: frozenset({"arguments", "width"}),
    ModelInstance: frozenset({"arguments"}),
    Constant: frozenset({"number"}),
    Map: frozenset({"hidden", "call"}),
    FastWeight: frozenset({"shape", "begins"}),
    Expression: frozenset({"body"}),
}
"""Fields that hold widths, or numbers that are computed from them."""

_FREE_ARGUMENTS = {
    "linear": ("width",),
    "embed": ("width",),
    "mlp": ("hidden",),
    "swiglu": ("hidden",),
    "scale": ("by",),
    "sigmoid": ("start",),
    "softplus": ("start",),
    "learned": ("width", "start"),
}
"""The same of stages; the others are counts: tokens of `conv`, groups of heads, rows of the vocabulary."""

_LEFT_OUT = ("mlp", "swiglu")
"""Stages and maps that choose a `hidden` where none is given."""


@dataclass(frozen=True, slots=True)
class Site:
    """A whole number of a spec that can be set.

    `node` is where it is written, None where it is left out; `tied`: it is a bare parameter, which is set
    where that is; `own`: the variant itself says what it is; `count`: a stage takes it for something other
    than a width.
    """

    path: str
    value: int
    node: e.Expr | None = field(default=None, compare=False, repr=False)
    tied: bool = False
    own: bool = False
    count: bool = False


@dataclass(frozen=True, slots=True)
class Width:
    """A width, its value, and the components of the level graph that change with it."""

    path: str
    value: int
    touches: frozenset[str]


@dataclass(frozen=True, slots=True)
class Point:
    """What a spec is for some values of its numbers: how much it has of what is held, and what each component
    of its level graph costs (parameters, FLOPs, bytes of state).
    """

    amount: int
    expanded: Expanded = field(repr=False)
    components: Mapping[str, tuple[int, int, int]] = field(repr=False)


def amount_of(graph: LevelGraph, what: Quantity) -> int:
    """Learned numbers, or FLOPs of one token's forward pass, of the whole model."""
    return graph.parameters if what == "parameters" else graph.flops_per_token


class Measured:
    """A variant at other values of its numbers, each measured once and none built.

    `origin` is the variant as it stands, where it is resolved already.
    """

    def __init__(
        self,
        module: Module,
        base: str | None,
        amendments: Sequence[doc.Amendment],
        what: Quantity,
        origin: Resolution | None = None,
    ) -> None:
        self.module, self.base, self.amendments = module, base, tuple(amendments)
        self.what: Quantity = what
        self.origin = resolve(module, variant=base, extra=list(amendments)) if origin is None else origin
        self.points: dict[frozenset[tuple[str, int]], Point | None] = {}

    def with_(self, given: Mapping[str, int]) -> list[doc.Amendment]:
        """All amendments of the variant, `given` last."""
        return [*self.amendments, *(settings(given))]

    def resolved(self, given: Mapping[str, int]) -> Resolution:
        """The variant with other values of some of its numbers."""
        return self.origin if not given else resolve(self.module, variant=self.base, extra=self.with_(given))

    def at(self, given: Mapping[str, int]) -> Point | None:
        """What the variant costs then; None where it has errors."""
        key = frozenset(given.items())
        if key not in self.points:
            self.points[key] = self._measure(self._quickly(given) if given else self.origin)
        return self.points[key]

    def _quickly(self, given: Mapping[str, int]) -> Resolution:
        """`resolved` without reading again what widths leave alone: the run beside its model."""
        training = self.origin.expanded.training if self.origin.expanded is not None else None
        return resolve(self.module, variant=self.base, extra=self.with_(given), training=training)

    def amount(self, given: Mapping[str, int]) -> int | None:
        """How much it then has of what is held; None where it has errors."""
        found = self.at(given)
        return found.amount if found is not None else None

    def _measure(self, resolution: Resolution) -> Point | None:
        expanded = resolution.expanded
        if expanded is None or expanded.model is None:
            return None
        graph = build(expanded)
        costs = {
            c.path: (c.parameters, c.flops_per_token, c.state_bytes)
            for c in graph.components
            if c.kind != "optimizer"
        }
        return Point(amount_of(graph, self.what), expanded, costs)


def settings(given: Mapping[str, int]) -> list[doc.Amendment]:
    """`set PATH = VALUE` for each."""
    return [amendment("set", path, e.Number(value), None) for path, value in given.items()]


# --------------------------------------------------------------------------- what a width leaves alone


def structure(expanded: Expanded) -> object:
    """All of a spec but the widths of its features: specs that agree in it differ in widths alone."""
    return _plain((expanded.model, expanded.training))


def _plain(value: object) -> object:
    if isinstance(value, Num):
        return value.value
    if isinstance(value, Map) and value.block is not None:
        return (_fields(value), _plain(value.block))
    if isinstance(value, Apply):
        free = _FREE_ARGUMENTS.get(value.primitive, ())
        kept = {k: v for k, v in value.arguments.items() if k not in free}
        return (value.primitive, value.path, _plain(value.shape), _plain(kept), _plain(value.input))
    if isinstance(value, dict):
        return tuple((key, _plain(one)) for key, one in value.items())
    if isinstance(value, tuple | list):
        return tuple(_plain(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    return value


def _fields(value: object) -> tuple[object, ...]:
    free = _FREE.get(type(value), frozenset())
    kept = [f.name for f in fields(value) if f.compare and f.name not in free]  # type: ignore[arg-type]
    return (type(value).__name__, *(_plain(getattr(value, name)) for name in kept))


# --------------------------------------------------------------------------- the whole numbers of a spec


def sites(resolution: Resolution, own: Iterable[doc.Amendment] = ()) -> list[Site]:
    """Every whole number that a path reaches in the parts that a resolved spec uses, in a fixed order.

    Args:
        resolution: without errors.
        own: the amendments of the variant; what they set or add is not to be changed again.
    """
    expanded, root = resolution.expanded, resolution.base
    if expanded is None or expanded.model is None or root is None:
        return []
    values = (a.value for a in own if a.action != "replace" and a.value is not None)
    theirs = {id(node) for value in values for node in value.walk()}
    parts = _parts(expanded)
    found = [*_arguments_of_the_model(expanded.model, root, resolution.module)]
    for name, instances in parts.by_name.items():
        declared = resolution.module.lookup(name) or resolution.module.below(name)
        if declared is None or not isinstance(declared[0], doc.Memory | doc.Block | doc.Model):
            continue
        found += _of_declaration(
            declared[0], declared[1], name, instances, parts, isinstance(root, doc.Model)
        )
    kept: dict[str, Site] = {}
    for one in found:
        path = next((p for p in one.paths if p in kept or _reaches(p, one, resolution)), None)
        if path is not None and path not in kept:
            mine = id(one.node) in theirs or id(one.call) in theirs
            kept[path] = Site(path, one.value, one.node, one.tied, mine, one.count)
    return list(kept.values())


@dataclass(frozen=True, slots=True)
class _Found:
    """A number before it is known which of the `paths` reaches it; `call` is what takes it."""

    paths: tuple[str, ...]
    value: int
    node: e.Expr | None
    call: e.Expr | None = None
    tied: bool = False
    count: bool = False


@dataclass(frozen=True, slots=True)
class _Parts:
    """The instances of a spec by name, and the `hidden` of stages and maps by where they are written."""

    by_name: dict[str, list[Instance]]
    hidden: dict[object, set[int]]


def _parts(expanded: Expanded) -> _Parts:
    found = _Parts({}, {})
    seen: set[int] = set()
    waiting: list[object] = [expanded.model]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, tuple | list):
            waiting += reversed(value)
        elif is_dataclass(value) and not isinstance(value, e.Expr):
            if isinstance(value, BlockInstance | MemoryInstance | ChainInstance | ModelInstance):
                found.by_name.setdefault(value.name, []).append(value)
            if isinstance(value, Apply) and value.primitive in _LEFT_OUT:
                given = value.arguments.get("hidden")
                hidden = given if isinstance(given, Num) else 4 * int(value.input.shape.width)
                found.hidden.setdefault(value.span, set()).add(int(hidden))
            if isinstance(value, Map) and value.hidden is not None:
                found.hidden.setdefault(value.span, set()).add(int(value.hidden))
            waiting += reversed([getattr(value, f.name) for f in fields(value)])
    return found


def _arguments_of_the_model(
    model: ModelInstance, root: doc.Train | doc.Model, module: Module
) -> Iterator[_Found]:
    """`model.dim` of a run."""
    if not isinstance(root, doc.Train):
        return
    call = root.fields.get("model")
    known = arguments_known(function_name(call) or "", module) if call is not None else None
    for name in known or ():
        value = _whole(model.arguments.get(name))
        if value is not None:
            yield _Found((f"model.{name}",), value, _given(call, name, known or []), call)


def _given(call: e.Expr | None, name: str, known: list[str]) -> e.Expr | None:
    if not isinstance(call, e.Call):
        return None
    for index, one in enumerate(call.arguments):
        if one.name == name or (one.name is None and index < len(known) and known[index] == name):
            return one.value
    return None


def _whole(value: object) -> int | None:
    number = value.value if isinstance(value, Num) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return int(number) if number >= 1 and number == int(number) else None


def _of_declaration(
    declaration: doc.Memory | doc.Block | doc.Model,
    module: Module,
    name: str,
    instances: list[Instance],
    parts: _Parts,
    alone: bool,
) -> Iterator[_Found]:
    """The defaults of its parameters, then the numbers in what it says."""
    if alone or not isinstance(declaration, doc.Model):  # those of a run's model are arguments of the run
        for parameter in declaration.parameters:
            value = _agreed(one.arguments.get(parameter.name) for one in instances)
            if value is not None and parameter.default is not None:
                yield _Found((f"{name}.{parameter.name}",), value, parameter.default, parameter.default)
    known = {p.name for p in declaration.parameters}
    for prefixes, value in _said(declaration):
        places = [f"{name}.{prefix}" if prefix else name for prefix in prefixes]
        for node in value.walk():
            yield from _of_call(node, value, places, known, module, instances, parts)


def _said(declaration: doc.Memory | doc.Block | doc.Model) -> Iterator[tuple[list[str], e.Expr]]:
    """Every expression of a declaration, with what its path may begin with."""
    if isinstance(declaration, doc.Memory):
        for name, value in declaration.fields.items():
            yield [name], value
        for level in declaration.chain.levels if declaration.chain is not None else ():
            for name, value in level.fields.items():
                yield [f"{level.name}.{name}"], value
        return
    for statement in flattened(declaration.body):
        target = statement.target
        if isinstance(target, e.Phrase):
            target = target.words[-1]
        names = [n.text for n in (statement.label, target) if isinstance(n, e.Name)]
        yield [*names, ""], statement.value


def _of_call(
    node: e.Expr,
    whole: e.Expr,
    places: list[str],
    parameters: set[str],
    module: Module,
    instances: list[Instance],
    parts: _Parts,
) -> Iterator[_Found]:
    """The numbers that one call is given, and the `hidden` that it leaves out."""
    name = function_name(node)
    known = arguments_known(name, module) if name is not None else None
    if name is None or known is None:
        return
    inside = [f"{place}.{name}" for place in places]
    bare = places if node is whole else []
    for argument in known:
        value = _given(node, argument, known)
        paths = tuple(f"{place}.{argument}" for place in (*inside, *bare))
        if value is not None:
            number = _agreed(_evaluated(value, one, module) for one in instances)
            if number is not None:
                tied = isinstance(value, e.Name) and value.text in parameters
                count = name in PRIMITIVES and argument not in _FREE_ARGUMENTS.get(name, ())
                yield _Found(paths, number, value, node, tied, count)
        elif argument == "hidden" and name in _LEFT_OUT and node.span is not None:
            chosen = parts.hidden.get(node.span, set())
            if len(chosen) == 1:
                yield _Found(paths, next(iter(chosen)), None, node)


def _evaluated(node: e.Expr, instance: Instance, module: Module) -> Num | None:
    """The number that an expression is in an instance; None for words and all else."""
    scope = Scope(module, Findings(), dict(instance.arguments), instance.name)
    try:
        return scope.number(node)
    except Unresolved:
        return None


def _agreed(values: Iterable[object]) -> int | None:
    """The one whole number that all of `values` are; None where they differ, as one setting cannot."""
    numbers = {_whole(value) for value in values}
    return next(iter(numbers)) if len(numbers) == 1 else None


def _reaches(path: str, found: _Found, resolution: Resolution) -> bool:
    """Whether a path leads to the number, and not to another of the same name."""
    assert resolution.base is not None
    try:
        return value_at(path, resolution.base, resolution.module) is found.node
    except NoSuchPath:
        return False


# --------------------------------------------------------------------------- those that are widths


def widths(measured: Measured, own: Iterable[doc.Amendment] = ()) -> list[Width]:
    """The widths of a variant that a search may change, those that touch the fewest components first.

    A bare parameter (`mlp(hidden)`) is set where it is declared or given, and only there.  Where a width of a
    whole memory is the source of widths of its levels (`mlp(hidden / 4)`), these follow it.  Weights that
    are read from a file have the widths of the file.
    """
    resolution = measured.resolved({})
    expanded = resolution.expanded
    if expanded is None or (expanded.training is not None and expanded.training.start is not None):
        return []
    memories = [one for one, _ in expanded.instances() if not isinstance(one, BlockInstance)]
    read = {
        level.path
        for one in memories
        if isinstance(one, ChainInstance)
        for level in one.levels
        if level.pretrained is not None
    }
    found = [
        width
        for site in sites(resolution, own)
        if not (site.tied or site.own or site.count)
        and (width := width_of(measured, site, strict=True)) is not None
    ]
    found = [one for one in found if not one.touches & read]
    whole = [one for one in found if _inside({memory.path for memory in memories}, one.touches)]
    kept = [one for one in found if not any(one.touches < other.touches for other in whole)]
    return sorted(kept, key=lambda one: (len(one.touches), one.path))


def _inside(memories: set[str], touched: frozenset[str]) -> bool:
    """Whether all components that a width touches belong to one memory."""
    return any(
        all(path == memory or path.startswith(f"{memory}.") for path in touched) for memory in memories
    )


def width_of(measured: Measured, site: Site, *, strict: bool) -> Width | None:
    """A whole number as a width; None where it is none.

    `strict`: it leaves the structure alone; otherwise it is enough that the amount changes with it.
    """
    origin = measured.at({})
    if origin is None or (site.node is None and not _stays(measured, site, origin)):
        return None
    for value in (2 * site.value, 3 * site.value, max(1, site.value // 2)):
        point = measured.at({site.path: value})
        if point is None:
            continue
        if point.amount == origin.amount or (
            strict and structure(point.expanded) != structure(origin.expanded)
        ):
            return None
        changed = {path for path, cost in point.components.items() if origin.components.get(path) != cost} | (
            origin.components.keys() - point.components.keys()
        )
        return Width(site.path, site.value, frozenset(changed))
    return None


def _stays(measured: Measured, site: Site, origin: Point) -> bool:
    """Whether to write the number that was left out changes nothing."""
    point = measured.at({site.path: site.value})
    return point is not None and (point.amount, point.components) == (origin.amount, origin.components)
