"""What an `optimizer` says, with its parameters bound: memories of gradients, and the weights that follow.

A rule is a level whose stream is gradients (Nested Learning, section 4).  At each of its updates its
memories, its named values and the weights are made in the order of `Algorithm.order`.  Formulas are values:
code generation, the level graph and the token loop read the same ones.

    m~ = retain m                 the share that stays
    vector          l2            m <- m~ + rate (value - m~)             an average where retain is 1
                    dot           m <- m~ + rate value                    a sum
    vector, key     l2            m <- m~ - rate (m key - value) key      number by number
                    dot           m <- m~ + rate value key
    matrix, key     l2            m <- m~ - rate (m key^T - value^T) key  the rows of key and value together
                    dot           m <- m~ + rate value^T key
    mlp, key        l2            m <- m~ - rate grad_m 1/2 sum of |m(key row) - value row|^2
                    dot           m <- m~ + rate grad_m sum of <m(key row), value row>

    the gradient of l2 is taken at m~ (`anchor = retained`) or at m as it was (`anchor = current`)
    implicit, l2    the proximal step: what lowers  1/2 |m key^T - value^T|^2 + |m - m~|^2 / (2 rate);
                    for a vector with a key  (m~ + rate value key) / (1 + rate key^2), for a matrix
                    (m~ + rate value^T key) (I + rate key^T key)^-1
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field, fields, replace
from functools import cache
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.records import record
from nldsl.resolve.core import Map

Kind = Literal["number", "scalar", "tensor"]
"""A number for a whole group of weights; one for each weight matrix (`rows`, `norm(grad)`); or a tensor."""

Axes = tuple[str, ...]
"""The axes of a tensor, each `rows`, `columns` or `tokens`; those of a weight are `WEIGHT`, matrix or not."""

WEIGHT: Axes = ("rows", "columns")


@record
class Formula:
    """Base of what stands in an optimizer.  `axes` are empty for what is no tensor."""

    kind: Kind
    axes: Axes = field(default=(), kw_only=True)
    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def walk(self) -> Iterator[Formula]:
        """This formula and everything below it."""
        waiting: list[Formula] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            values = [getattr(node, name) for name in _below(type(node))]
            found = [
                i for v in values for i in (v if isinstance(v, tuple) else (v,)) if isinstance(i, Formula)
            ]
            waiting += reversed(found)


@cache
def _below(kind: type[Formula]) -> tuple[str, ...]:
    """The fields of a kind of formula in which others may stand."""
    return tuple(f.name for f in fields(kind) if f.name not in Formula.__dataclass_fields__)  # type: ignore[arg-type]


@record
class Figure(Formula):
    """A number."""

    value: float | int


@record
class Option(Formula):
    """A parameter of the rule, which a run may change: `rate`, `beta`."""

    name: str


@record
class Signal(Formula):
    """What the world gives: a name of `SIGNALS`."""

    name: str


@record
class Local(Formula):
    """A value that the optimizer gave a name of its own."""

    name: str


@record
class Recall(Formula):
    """What a memory holds (`first`), or what it answers to `query` (`m(grad)`), row by row."""

    memory: str
    query: Formula | None = None


@record
class Operation(Formula):
    """`left op right`, element by element; `op` is one of `+ - * / ^`."""

    op: str
    left: Formula
    right: Formula


@record
class Negative(Formula):
    """`-operand`."""

    operand: Formula


@record
class Function(Formula):
    """`sqrt(second)`, `orthogonal(near, rounds)`: names are in `FUNCTIONS`, arguments complete."""

    name: str
    arguments: tuple[Formula, ...]


SIGNALS: dict[str, tuple[str, Kind, Axes]] = {
    "grad": ("the gradient of the weights", "tensor", WEIGHT),
    "weight": ("the weights before the update", "tensor", WEIGHT),
    "step": ("the number of the update, from 1", "number", ()),
    "rows": ("how many rows a weight matrix has", "scalar", ()),
    "columns": ("how many columns it has", "scalar", ()),
    "tokens": ("how many tokens linear layers were given", "scalar", ()),
    "input": ("what a linear layer was given, a token in each row", "tensor", ("tokens", "columns")),
    "error": ("the gradient at a linear layer's output, a token in each row", "tensor", ("tokens", "rows")),
}
"""What a rule is given: meaning, kind and axes."""

FUNCTIONS: dict[str, tuple[str, str]] = {
    "sqrt": ("sqrt(a)", "the square root"),
    "exp": ("exp(a)", "the exponential"),
    "log": ("log(a)", "the natural logarithm"),
    "abs": ("abs(a)", "the absolute value"),
    "sign": ("sign(a)", "-1, 0 or 1"),
    "min": ("min(a, b)", "the smaller of two"),
    "max": ("max(a, b)", "the larger of two"),
    "mean": ("mean(a)", "the mean of all numbers of a matrix"),
    "norm": ("norm(a)", "the root of the sum of their squares"),
    "orthogonal": (
        "orthogonal(a, rounds = 5)",
        "nearly the nearest orthogonal matrix: Newton-Schulz, quintic",
    ),
    "transposed": ("transposed(a)", "rows and columns exchanged"),
    "times": ("times(a, b)", "the product of two matrices"),
    "solve": ("solve(a, b)", "a b^-1, for a square b"),
    "gram": ("gram(a)", "the mean over tokens of x x^T, with x the rows of a"),
    "identity": ("identity(rows)", "the identity matrix, of `rows` or of `columns`"),
    "jacobian": ("jacobian(m(a))", "the derivative of what m answers, averaged over the rows of a"),
}
"""Functions of formulas: how each is written, and what it gives."""

ELEMENTWISE = ("sqrt", "exp", "log", "abs", "sign", "min", "max")
FOR_MATRICES = ("orthogonal", "transposed", "times", "solve", "gram", "identity", "jacobian")


@record
class RuleMemory:
    """A memory of a rule: see the head of this file for what a write does.

    `axes`: of what it holds; of an `mlp`, (what it answers, what it is asked).  `update` is a period in the
    rule's own updates, above 1, and None is 1: the values of a period become one by `reduce`, and are written
    at its last update.  `read`: whether formulas see the memory `after` its write in the same update or
    `before`; with a period always `before`, so a write is seen from the next update on.  `start` of an mlp:
    `identity` (the last layer zero, so that the residual path is left) or `drawn`.
    """

    name: str
    map: Map
    value: Formula
    objective: Literal["l2", "dot"]
    rate: Formula
    retain: Formula | None = None
    key: Formula | None = None
    implicit: bool = False
    anchor: Literal["retained", "current"] = "retained"
    update: Formula | None = None
    reduce: Literal["mean", "sum"] = "mean"
    read: Literal["after", "before"] = "after"
    start: Literal["zeros", "identity", "drawn"] = "zeros"
    axes: Axes = WEIGHT
    span: Span | None = field(default=None, compare=False, repr=False)

    def formulas(self) -> tuple[Formula, ...]:
        """Every formula of it."""
        every = (self.value, self.key, self.rate, self.retain, self.update)
        return tuple(one for one in every if one is not None)

    def holds(self, rows: int, columns: int) -> int:
        """Numbers that it holds for a weight of `rows` by `columns`, with what it gathers over a period."""
        sizes = {"rows": rows, "columns": columns}
        out, into = (sizes[axis] for axis in self.axes)
        held = out * into
        if self.map.kind == "mlp":
            held = sum(a * b for a, b in self.map.weights(into, out))
        return held * (1 if self.update is None else 2)


@record
class Algorithm:
    """A rule with its numbers bound.

    `options` are the numbers that a run may change, without `rate`; words of the spec (`accumulate = sum`)
    are gone into the formulas.  `order` holds the names of all memories, all locals and `weight`, as they are
    to be made: one that another reads stands before it, one whose old state another reads stands after it.
    `matrices`: it means something for matrices only; what is none, embeddings and heads go to `otherwise`,
    whose options are `otherwise_options` where given, spelled in this rule's (its `rate` always).
    """

    name: str
    options: dict[str, float | int]
    memories: tuple[RuleMemory, ...]
    locals: tuple[tuple[str, Formula], ...]
    weight: Formula
    order: tuple[str, ...] = ()
    matrices: bool = False
    otherwise: Algorithm | None = None
    otherwise_options: dict[str, Formula] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)  # that were chosen, for people
    declared: Span | None = field(default=None, compare=False, repr=False)

    def __hash__(self) -> int:
        """By the names alone: numbers stand in dicts."""
        return hash((self.name, self.order))

    def memory(self, name: str) -> RuleMemory:
        """The memory called `name`; raises `KeyError`."""
        for one in self.memories:
            if one.name == name:
                return one
        raise KeyError(name)

    def formulas(self) -> tuple[Formula, ...]:
        """Every formula of it, `otherwise` apart."""
        inside = (f for one in self.memories for f in one.formulas())
        return (*inside, *(f for _, f in self.locals), self.weight)

    def signals(self) -> frozenset[str]:
        """What of the world it reads, `otherwise` included."""
        nodes = (node for f in self.formulas() for node in f.walk())
        own = frozenset(node.name for node in nodes if isinstance(node, Signal))
        return own | (self.otherwise.signals() if self.otherwise is not None else frozenset())

    @property
    def of_layers(self) -> bool:
        """Whether it has to see what linear layers were given, or the gradients at their outputs."""
        return bool(self.signals() & {"input", "error", "tokens"})

    @property
    def form(self) -> Algorithm:
        """The same without its numbers: two rules of one form are the same code with other options."""
        inner = self.otherwise.form if self.otherwise is not None else None
        return replace(self, options=dict.fromkeys(self.options, 0), otherwise=inner)

    def period(self, memory: RuleMemory) -> int:
        """The updates of the rule for one update of `memory`."""
        found = constant(memory.update, self.options) if memory.update is not None else 1
        return int(found or 1)


def constant(formula: Formula | None, options: dict[str, float | int]) -> float | None:
    """The number that a formula has in every update; None where it has none, as it reads something."""
    match formula:
        case Figure(value=value):
            return value
        case Option(name=name):
            return options.get(name)
        case Negative(operand=operand):
            inner = constant(operand, options)
            return None if inner is None else -inner
        case Operation(op=op, left=left, right=right):
            return _computed(op, constant(left, options), constant(right, options))
        case Function(name=name, arguments=arguments):
            return _called(name, [constant(one, options) for one in arguments])
        case _:
            return None


def _computed(op: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    try:
        match op:
            case "+":
                made = left + right
            case "-":
                made = left - right
            case "*":
                made = left * right
            case "/":
                made = left / right
            case _:
                made = math.pow(left, right)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return made if math.isfinite(made) else None


def _called(name: str, arguments: list[float | None]) -> float | None:
    numbers = [one for one in arguments if one is not None]
    if len(numbers) < len(arguments):
        return None
    try:
        match name, numbers:
            case "sqrt", [a]:
                return math.sqrt(a)
            case "exp", [a]:
                return math.exp(a)
            case "log", [a]:
                return math.log(a)
            case "abs", [a]:
                return abs(a)
            case "sign", [a]:
                return float((a > 0) - (a < 0))
            case "min", [a, b]:
                return min(a, b)
            case "max", [a, b]:
                return max(a, b)
            case _:
                return None
    except (ValueError, OverflowError):
        return None


def seen_signals(algorithm: Algorithm) -> frozenset[str]:
    """What of the layers a rule reads: `input`, `error`, or the Gram matrix of one."""

    def look(formula: Formula) -> Iterator[str]:
        match formula:
            case Function(name="gram", arguments=(Signal(name="input" | "error" as name),)):
                yield f"{name}_gram"
            case Signal(name="input" | "error" | "tokens" as name):
                yield name
            case Operation(left=left, right=right):
                yield from look(left)
                yield from look(right)
            case Negative(operand=operand):
                yield from look(operand)
            case Function(arguments=arguments):
                for one in arguments:
                    yield from look(one)
            case Recall(query=query) if query is not None:
                yield from look(query)
            case _:
                return

    return frozenset(name for formula in algorithm.formulas() for name in look(formula))
