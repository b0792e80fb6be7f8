"""The code that is being written, as values: expressions and statements of a small part of Python.

Emitters build these; `nldsl.codegen.emit.printer` turns them into text.  Comments and blank lines
are part of the code, because people read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Code:
    """Base of all expressions."""


@dataclass(frozen=True, slots=True)
class Atom(Code):
    """A name, an attribute, a literal: text that never breaks."""

    text: str


@dataclass(frozen=True, slots=True)
class Invoke(Code):
    """`function(arguments, name=value)`."""

    function: str
    arguments: tuple[Code, ...] = ()
    named: tuple[tuple[str, Code], ...] = ()


@dataclass(frozen=True, slots=True)
class Infix(Code):
    """`left op right`; parentheses are added where precedence needs them."""

    op: str
    left: Code
    right: Code


@dataclass(frozen=True, slots=True)
class Several(Code):
    """`(a, b)`, or bare `a, b` where a target or a return value stands."""

    items: tuple[Code, ...]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Mapping(Code):
    """`{"a": b}`."""

    items: tuple[tuple[str, Code], ...]


@dataclass(frozen=True, slots=True)
class Indexed(Code):
    """`value[index]`."""

    value: Code
    index: str


@dataclass(frozen=True, slots=True)
class Method(Code):
    """`value.name(arguments)`."""

    value: Code
    name: str
    arguments: tuple[Code, ...] = ()
    named: tuple[tuple[str, Code], ...] = ()


@dataclass(frozen=True, slots=True)
class Conditional(Code):
    """`value if condition else other`."""

    value: Code
    condition: Code
    other: Code


# --------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Step:
    """Base of all statements."""


@dataclass(frozen=True, slots=True)
class Comment(Step):
    """One or more comment lines."""

    text: str


@dataclass(frozen=True, slots=True)
class Blank(Step):
    """Empty lines."""

    lines: int = 1


@dataclass(frozen=True, slots=True)
class Assign(Step):
    """`target = value  # comment`, with an annotation if given."""

    target: Code
    value: Code
    comment: str = ""
    annotation: str = ""


@dataclass(frozen=True, slots=True)
class Do(Step):
    """An expression for its effect."""

    value: Code


@dataclass(frozen=True, slots=True)
class Return(Step):
    """`return value`."""

    value: Code


@dataclass(frozen=True, slots=True)
class Nested(Step):
    """A compound statement: `head:` and what stands below it."""

    head: str
    body: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Function(Step):
    """A function or method.  `parameters` are complete (`dim: int`)."""

    name: str
    parameters: tuple[str, ...]
    returns: str
    body: tuple[Step, ...]
    docstring: str = ""
    decorators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Class(Step):
    """A class."""

    name: str
    bases: tuple[str, ...]
    body: tuple[Step, ...]
    docstring: str = ""
    decorators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verbatim(Step):
    """Text taken over as it is: a kernel from the engines."""

    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A Python file."""

    docstring: str
    imports: tuple[str, ...]
    body: tuple[Step, ...] = field(default=())


def name(text: str) -> Atom:
    """A name, or any other text that never breaks."""
    return Atom(text)


def call(function: str, *arguments: Code | str | float, **named: Code | str | float) -> Invoke:
    """`function(...)` with strings taken as code.

    >>> call("nn.Linear", "dim", 4, bias=False).named
    (('bias', Atom(text='False')),)
    """
    return Invoke(function, tuple(code(a) for a in arguments), tuple((k, code(v)) for k, v in named.items()))


def code(value: Code | str | float) -> Code:
    """Strings are code already; numbers are written out."""
    if isinstance(value, Code):
        return value
    return Atom(value if isinstance(value, str) else repr(value))
