"""A user's own block as the map of a memory: what it may hold, and which of its numbers become fast weights.

Every learned number of the block, linear weights as well as gains and biases, is a fast weight of each head.
Lines of blocks inside it, and the copies of a `repeat`, are taken in as if they stood there; a prefix tells
their weights apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from nldsl.diagnostics.model import Span
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import bind, function_name
from nldsl.resolve.context import Context
from nldsl.resolve.expanded import (
    Apply,
    Arithmetic,
    BlockInstance,
    Constant,
    FastWeight,
    Flow,
    Line,
    Map,
    Num,
    Repeat,
    Shape,
    Use,
    Variable,
)
from nldsl.resolve.layouts import times
from nldsl.resolve.modules import Module
from nldsl.resolve.scope import Scope, Word

POINTWISE = frozenset(
    {"silu", "gelu", "relu", "elu", "tanh", "exp", "sigmoid", "softplus", "scale", "learned"}
)
PARTS = POINTWISE | {"linear", "unit", "rmsnorm", "layernorm", "mlp", "swiglu"}
"""Primitives that look at one token alone, give the same answer twice, and know no heads."""

_SHORT = {"rmsnorm": "norm", "layernorm": "norm"}


@dataclass(slots=True)
class Inlined:
    """The weights of a block: those of each stage, and what stands before the names of what is inside.

    Keys hold the prefix of the block that a stage stands in, and the stage as an object; `copies` hold the
    number of the copy as well.
    """

    weights: dict[tuple[str, int], tuple[FastWeight, ...]] = field(default_factory=dict)
    copies: dict[tuple[str, int, int], str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def every(self) -> tuple[FastWeight, ...]:
        """All weights, in the order in which they are used."""
        return tuple(weight for several in self.weights.values() for weight in several)

    def fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted_2` and so on if it is taken."""
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name


def declared_block(node: e.Expr, scope: Scope) -> tuple[e.Expr, doc.Block, Module] | None:
    """The block that a map names, through parameters; `None` where it names none."""
    value = scope.value(node) if isinstance(node, e.Name) else node
    call = value if isinstance(value, e.Expr) else node
    name = value.text if isinstance(value, Word) else function_name(call)
    found = scope.module.lookup(name) if name is not None else None
    if found is None or not isinstance(found[0], doc.Block):
        return None
    return (call if isinstance(call, e.Call) else e.Name((name or "",), span=node.span)), found[0], found[1]


def block_map(
    node: e.Expr, declaration: doc.Block, module: Module, key: Flow, value: Flow, context: Context
) -> Map:
    """The map of a memory that is a block, from the features of a key in one head to those of a value."""
    findings, width = context.scope.findings, key.shape.width
    dim = bind(node, declaration.name, declaration.parameters, module, context.scope).arguments.get("dim")
    if dim is not None and dim.value != width.value:
        raise findings.stop(
            "NL0402",
            f"`{print_expr(node)}` has `dim = {dim.value}`, and a key has {int(width)} features in a head",
            node.span,
            "the map of one head",
            others=((key.span, "keys"),),
            help=f"a map works on one head: give it `dim = {_spelled(width)}`",
        )
    taken = Variable(Shape("flat", width), "x", span=key.span)
    used = context.instantiate(node, declaration, module, taken, context)
    assert isinstance(used, Use)
    assert isinstance(used.instance, BlockInstance)
    block = used.instance
    for span, what in refused(block):
        raise findings.stop(
            "NL0530",
            f"the block `{block.name}` holds {what}, so it can be no map",
            node.span,
            "the map",
            others=((span, "not a function of one token"),),
            help="leave it out of the block, and give it to the key, the query or the `out` of the memory",
        )
    if block.shape.layout != "flat" or block.shape.features != int(value.shape.width):
        raise findings.stop(
            "NL0401",
            f"`{print_expr(node)}` gives {block.shape.features} features, and values have "
            f"{int(value.shape.width)} in a head",
            node.span,
            "the map",
            others=((value.span, "values"),),
            help=f"end the block with `linear({int(value.shape.width)})`",
        )
    fast = tuple(
        replace(w, shape=tuple(respelled(n, block.arguments) for n in w.shape))
        for w in inlined(block).every()
    )
    if not fast:
        raise findings.stop(
            "NL0530",
            f"the block `{block.name}` has no weights, so nothing of it can be written",
            node.span,
            "nothing to learn",
            help="give it a `linear`",
        )
    return Map("block", call=print_expr(node), block=block, fast=fast, span=node.span)


def _spelled(width: Num) -> str:
    return print_expr(width.symbol) if width.symbol is not None else str(int(width))


def refused(block: BlockInstance) -> Iterator[tuple[Span | None, str]]:
    """What no map can hold: where it stands, and what it is."""
    for line in block.lines:
        for node in line.flow.walk():
            match node:
                case Variable() | Constant() | Arithmetic():
                    continue
                case Apply(primitive=name) if name in PARTS:
                    continue
                case Apply(primitive=name):
                    yield node.span, f"`{name}`"
                case Use(instance=BlockInstance() as inner, name=None):
                    yield from refused(inner)
                case Use(instance=inner):
                    yield node.span, f"the instance `{inner.name}`"
                case Repeat(instances=several):
                    for inner in several:
                        if isinstance(inner, BlockInstance):
                            yield from refused(inner)
                        else:
                            yield node.span, f"the memory `{inner.name}`"
                case _:
                    yield node.span or line.span, "what looks at several tokens"


def inlined(block: BlockInstance) -> Inlined:
    """The weights of a block in which nothing is refused, by stage."""
    made = Inlined()
    _inline(block, "", made)
    return made


def _inline(block: BlockInstance, prefix: str, made: Inlined) -> None:
    for line in block.lines:
        for node in line.flow.walk():
            if isinstance(node, Apply):
                made.weights[prefix, id(node)] = tuple(_named(node, line, prefix, made))
            elif isinstance(node, Use):
                assert isinstance(node.instance, BlockInstance)
                _copy(node.instance, (prefix, id(node), 0), made)
            elif isinstance(node, Repeat):
                many = len(node.instances)
                for copy in range(int(node.count) * many):
                    instance = node.instances[copy % many]
                    assert isinstance(instance, BlockInstance)
                    _copy(instance, (prefix, id(node), copy), made)


def _copy(instance: BlockInstance, place: tuple[str, int, int], made: Inlined) -> None:
    """A block inside another, its sizes spelled as the outer one would."""
    prefix = made.fresh(f"{place[0]}{_snake(instance.name)}") + "_"
    made.copies[place] = prefix
    before = set(made.weights)
    _inline(instance, prefix, made)
    for key in set(made.weights) - before:
        made.weights[key] = tuple(
            replace(w, shape=tuple(respelled(n, instance.arguments) for n in w.shape))
            for w in made.weights[key]
        )


def _named(node: Apply, line: Line, prefix: str, made: Inlined) -> Iterator[FastWeight]:
    """The weights of one stage, with names of their own."""
    own = line.label or (line.target if line.target != "x" else "") or ""
    for suffix, shape, begins in weights_of(node):
        short = suffix or _SHORT.get(node.primitive, node.primitive)
        name = made.fresh(f"W_{prefix}{own}_{short}" if own else f"W_{prefix}{short}")
        yield FastWeight(name, shape, begins)


def weights_of(node: Apply) -> list[tuple[str, tuple[Num, ...], float | None]]:
    """What one stage learns: a short name (its own if empty), a shape, where it begins (`None`: drawn)."""
    given, out = node.arguments, node.shape.width
    width = node.input.shape.width
    start = given.get("start")
    match node.primitive:
        case "linear":
            bias = [("bias", (out,), 0.0)] if given.get("bias") is True else []
            return [("", (out, width), None), *bias]
        case "rmsnorm":
            return [("", (out,), 1.0)]
        case "layernorm":
            return [("", (out,), 1.0), ("norm_bias", (out,), 0.0)]
        case "learned":
            return [("", (out,), float(start) if isinstance(start, Num) else 1.0)]
        case "sigmoid" if isinstance(start, Num):
            return [("start", (out,), math.log(float(start) / (1 - float(start))))]
        case "softplus" if isinstance(start, Num):
            return [("start", (out,), float(start) + math.log(-math.expm1(-float(start))))]
        case "mlp":
            inner, depth = _hidden(node), _count(given.get("depth"), 2)
            sizes = [width, *[inner] * (depth - 1), width]
            norm = [("norm", (width,), 1.0)] if given.get("norm") else []
            layers = [(f"mlp_{n}", (sizes[n], sizes[n - 1]), None) for n in range(1, depth + 1)]
            return [*norm, *layers]
        case "swiglu":
            inner = _hidden(node)
            return [
                ("gate", (inner, width), None),
                ("up", (inner, width), None),
                ("down", (width, inner), None),
            ]
        case _:
            return []


def _hidden(node: Apply) -> Num:
    given = node.arguments.get("hidden")
    return given if isinstance(given, Num) else times(Num(4, e.Number(4)), node.input.shape.width)


def _count(given: Num | str | bool | None, otherwise: int) -> int:
    return int(given) if isinstance(given, Num) else otherwise


def respelled(number: Num, arguments: dict[str, Num]) -> Num:
    """A number of a block, spelled as its caller would."""
    if number.symbol is None:
        return number
    return replace(number, symbol=_replaced(number.symbol, arguments))


def _replaced(node: e.Expr, arguments: dict[str, Num]) -> e.Expr | None:
    match node:
        case e.Name(text=name) if name in arguments:
            given = arguments[name]
            return given.symbol if given.symbol is not None else e.Number(given.value)
        case e.Binary(op=op, left=left, right=right):
            a, b = _replaced(left, arguments), _replaced(right, arguments)
            return e.Binary(op, a, b) if a is not None and b is not None else None
        case e.Number():
            return node
        case _:
            return None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
