"""What an `optimizer` says, with its parameters bound: memories of gradients, and the weights that follow.

A rule is a level whose stream is gradients (Nested Learning, section 4).  At each of its updates its memories
are written in the order of `memories` (one that another reads stands before it), every one by the algebra of
any memory, and then the weights become `weight`.  Formulas are values: code generation, the level graph and
the token loop read the same ones.

    vector, l2    m <- retain m + rate (value - m~)           m~ = retain m: an average where retain is 1
    vector, dot   m <- retain m + rate value                   a sum
    matrix, mlp   gradient descent on 1/2 |m(key) - value|^2 over the rows of key and value (`l2`),
                  or on -<m(key), value> (`dot`); `implicit`: the proximal step on `l2`, for a matrix
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.records import record
from nldsl.resolve.core import Map

Kind = Literal["number", "tensor"]
"""A number for a whole group of weights, or one for each weight (of the shape of the gradient)."""


@record
class Formula:
    """Base of what stands in an optimizer."""

    kind: Kind
    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def walk(self) -> Iterator[Formula]:
        """This formula and everything below it."""
        yield self
        for one in fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Formula):
                    yield from item.walk()


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
    """What the world gives: `grad`, `weight`, `step` (from 1), `rows`, `columns`, `input`, `error`.

    `input` is what a linear layer was given and `error` the gradient at its output, tokens first.
    """

    name: str


@record
class Local(Formula):
    """A value that the optimizer gave a name of its own."""

    name: str


@record
class Recall(Formula):
    """What a memory holds (`first`), or what it answers to `query` (`m(grad)`)."""

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
    """`sqrt(second)`, `orthogonal(near)`, `solve(...)`: names are in `FUNCTIONS`."""

    name: str
    arguments: tuple[Formula, ...]
    words: tuple[tuple[str, float | int], ...] = ()


@record
class RuleMemory:
    """A memory of a rule.  `update` counts the rule's own updates; `reduce` what becomes of the values of a
    period.  Without `key` the memory holds values element by element (`vector`).
    """

    name: str
    map: Map
    value: Formula
    objective: Literal["l2", "dot"]
    rate: Formula
    retain: Formula | None = None
    key: Formula | None = None
    implicit: bool = False
    update: Formula | None = None  # None: at each
    reduce: Literal["mean", "sum"] = "mean"
    start: Literal["zeros", "identity"] = "zeros"
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class Algorithm:
    """A rule.  `matrices`: it means something for matrices only, and what is none goes to `otherwise`."""

    name: str
    options: dict[str, float | int]
    memories: tuple[RuleMemory, ...]
    locals: tuple[tuple[str, Formula], ...]
    weight: Formula
    matrices: bool = False
    otherwise: Algorithm | None = None
    otherwise_options: dict[str, Formula] = field(default_factory=dict)  # spelled in this rule's options
    said: str = ""  # the comment above the declaration
    declared: Span | None = field(default=None, compare=False, repr=False)

    def signals(self) -> frozenset[str]:
        """What of the world it reads."""
        whole = [
            f for m in self.memories for f in (m.value, m.key, m.rate, m.retain, m.update) if f is not None
        ]
        whole += [f for _, f in self.locals]
        every = (node for f in (*whole, self.weight) for node in f.walk())
        own = frozenset(node.name for node in every if isinstance(node, Signal))
        return own | (self.otherwise.signals() if self.otherwise is not None else frozenset())
