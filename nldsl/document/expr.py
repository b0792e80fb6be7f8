"""The expression tree that both surfaces (`.nl` text and YAML) share.

The grammar is deliberately small: a file is a list of *statements*, and what words
such as `memory`, `every` or `adaptive` mean is decided later, from data.  So a
construct is a `Phrase`: words, numbers, calls and `{ }` bodies standing side by side.

    update = every 16 tokens offset 4        Statement(target=update, value=Phrase(...))
    level fast { map = mlp(hidden) }         Statement(value=Phrase((level, fast, Body)))
    mixer: x = x + (x |> rmsnorm |> A(dim))  Statement(label=mixer, target=x, value=...)

Every node carries the span it was read from; spans and comments take no part in equality.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields
from functools import cache

from nldsl.diagnostics.model import Span
from nldsl.records import record

UNITS = {
    "token": "token", "tokens": "token",
    "step": "step", "steps": "step",
    "sequence": "sequence", "sequences": "sequence",
    "document": "document", "documents": "document",
    "%": "%",
}  # fmt: skip


@record
class Expr:
    """Base of all nodes."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def children(self) -> Iterator[Expr]:
        """Direct sub-expressions in source order (statements of bodies included)."""
        for name in _names(type(self)):
            value = getattr(self, name)
            items = value if isinstance(value, tuple) else (value,)
            for item in items:
                if isinstance(item, Expr):
                    yield item

    def walk(self) -> Iterator[Expr]:
        """This node and everything below it, depth first."""
        waiting: list[Expr] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(list(node.children()))


@cache
def _names(kind: type[Expr]) -> tuple[str, ...]:
    """The fields of a kind of node that may hold others; specs are walked often, so found once."""
    return tuple(f.name for f in fields(kind) if f.name != "span")


@record
class Number(Expr):
    """`4`, `3e-4`, `2_000`; `text` keeps the author's spelling."""

    value: int | float
    text: str = field(default="", compare=False)


@record
class Text(Expr):
    """A quoted string."""

    value: str


@record
class Name(Expr):
    """A word or dotted path: `x`, `Continuum.slow`.  `true` and `false` are names too."""

    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        return ".".join(self.parts)


@record
class Quantity(Expr):
    """An amount with a unit: `16 tokens`, `(4 * n) steps`, `2%`.  `unit` is a value of `UNITS`."""

    amount: Expr
    unit: str


@record
class Argument(Expr):
    """One argument of a call, named or not."""

    value: Expr
    name: str | None = None


@record
class Call(Expr):
    """`f(a, b = c)`; the parenthesis touches the name.  `m.read(q)` has a dotted `function`."""

    function: Name
    arguments: tuple[Argument, ...] = ()

    def get(self, name: str) -> Expr | None:
        """The value of the named argument, or None."""
        return next((a.value for a in self.arguments if a.name == name), None)

    @property
    def positional(self) -> tuple[Expr, ...]:
        return tuple(a.value for a in self.arguments if a.name is None)


@record
class Pipe(Expr):
    """`source |> stage |> stage`."""

    source: Expr
    stages: tuple[Expr, ...]


@record
class Binary(Expr):
    """`left op right` with `op` one of `+ - * / ^`."""

    op: str
    left: Expr
    right: Expr


@record
class Unary(Expr):
    """`-operand`."""

    op: str
    operand: Expr


@record
class ListOf(Expr):
    """`[a, b, c]`."""

    items: tuple[Expr, ...]


@record
class TupleOf(Expr):
    """`(a, b)`: two or more; one item in parentheses is just that item."""

    items: tuple[Expr, ...]


@record
class Phrase(Expr):
    """Words side by side: `every 16 tokens`, `adaptive mlp(residual) { key = own }`, `learned in slow`."""

    words: tuple[Expr, ...]

    @property
    def head(self) -> str | None:
        """The first word, when it is a plain one."""
        first = self.words[0]
        return first.text if isinstance(first, Name) else None

    @property
    def body(self) -> Body | None:
        """The first `{ }` among the words, or None."""
        return next((w for w in self.words if isinstance(w, Body)), None)


@record
class Statement(Expr):
    """`label: target = value`; label and target may be missing.

    `comments` are the comment lines just above (without `#`), `trailing` the comment
    on the same line, `blank_before` whether an empty line stands before it.
    """

    value: Expr
    target: Expr | None = None
    label: Name | None = None
    comments: tuple[str, ...] = field(default=(), compare=False, kw_only=True)
    trailing: str | None = field(default=None, compare=False, kw_only=True)
    blank_before: bool = field(default=False, compare=False, kw_only=True)


@record
class Body(Expr):
    """Statements in braces.  `closing_comments` stand before the closing brace (or the end of the file)."""

    statements: tuple[Statement, ...]
    closing_comments: tuple[str, ...] = field(default=(), compare=False, kw_only=True)
    inline: bool = field(default=False, compare=False, kw_only=True)
