"""Statements taken apart: head words, `=`, body; and the findings that all declarations share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Source, Span
from nldsl.diagnostics.suggest import did_you_mean
from nldsl.document import expr as e
from nldsl.document import model as m
from nldsl.document.printer import print_expr
from nldsl.syntax.words import CONNECTIVES

FORMS = {
    "edition": "edition 2026",
    "import": 'import [A, B] from std`, `import [A] from "file.nl"` or `import "file.nl" as name',
    "let": "let name = value",
    "memory": "memory Name(parameters) { field = value }",
    "optimizer": "optimizer name(parameters) { weight = ... }",
    "block": "block Name(parameters) { label: x = ... }",
    "model": "model Name(parameters) { tokens |> ... }",
    "train": "train Name { model = ..., data = ... }",
    "variant": "variant Name of Base { set path = value }",
    "ablate": "ablate Name of Base { without = [...] }",
    "chain": "chain sequential { level name { ... } }",
    "level": "level name { field = value }",
    "eval": "eval every 200 steps { measure }",
    "set": "set path = value",
    "add": "add path = value",
    "remove": "remove path",
    "replace": "replace path by value`, in an `ablate` block `replace path = [value, value]",
    "vary": "vary path = [value, value]",
    "grid": "grid [path, path] = [[value, value], [value, value]]",
    "zip": "zip [path, path] = [[value, value], [value, value]]",
    "without": "without = [path, [path, path]]",
    "variants": "variants = [Name, Name]",
    "keep": "keep parameters within 2%",
    "otherwise": "otherwise rule(...)",
}


@dataclass(slots=True)
class Head:
    """A statement taken apart: the words in front of `=` (or all of them), the value, the `{ }`."""

    statement: e.Statement
    words: tuple[e.Expr, ...]
    value: e.Expr | None
    body: e.Body | None

    @property
    def word(self) -> str | None:
        first = self.words[0] if self.words else None
        return first.text if isinstance(first, e.Name) else None

    @property
    def span(self) -> Span | None:
        return self.words[0].span if self.words else self.statement.span

    @property
    def assigns(self) -> bool:
        return self.value is not None


def head_of(statement: e.Statement) -> Head:
    """Take a statement apart."""
    front = statement.value if statement.target is None else statement.target
    value = None if statement.target is None else statement.value
    words = front.words if isinstance(front, e.Phrase) else (front,)
    body = None
    if value is None and isinstance(words[-1], e.Body):
        body, words = words[-1], words[:-1]
    return Head(statement, words, value, body)


def leftmost(value: e.Expr) -> e.Expr:
    """What a pipeline or sum begins with."""
    while True:
        match value:
            case e.Pipe(source=inner) | e.Binary(left=inner):
                value = inner
            case _:
                return value


def without_leading(value: e.Expr, count: int) -> e.Expr | None:
    """`value` less the first `count` words of its leftmost phrase: `otherwise a |> b` to `a |> b`."""
    match value:
        case e.Pipe(source=source, stages=stages):
            rest = without_leading(source, count)
            return None if rest is None else e.Pipe(rest, stages, span=join(rest.span, value.span))
        case e.Binary(op=op, left=left, right=right):
            rest = without_leading(left, count)
            return None if rest is None else e.Binary(op, rest, right, span=join(rest.span, value.span))
        case e.Phrase(words=words) if len(words) > count:
            return phrase_of(words[count:])
        case _:
            return None


def join(start: Span | None, end: Span | None) -> Span | None:
    """The span from one to the other, where there is one."""
    return start.to(end) if start is not None else end


def phrase_of(words: tuple[e.Expr, ...]) -> e.Expr:
    """Words side by side; a single one is just itself."""
    if len(words) == 1:
        return words[0]
    return e.Phrase(words, span=join(words[0].span, words[-1].span))


def is_word(node: e.Expr, text: str) -> bool:
    """Whether `node` is the plain word `text`."""
    return isinstance(node, e.Name) and node.text == text


@dataclass
class Fields:
    """The assignments of one body, each name once."""

    values: dict[str, e.Expr] = field(default_factory=dict)
    spans: dict[str, Any] = field(default_factory=dict)


def first_word(statement: e.Statement) -> str | None:
    """The first word of a statement whose value goes on with a pipeline or operator."""
    left = leftmost(statement.value)
    return left.head if isinstance(left, e.Phrase) else None


def is_spaced(left: e.Expr, right: e.Expr) -> bool:
    """Whether `right` stands in parentheses behind a name that would be its function."""
    if not isinstance(left, e.Name) or left.text in CONNECTIVES:
        return False
    if right.span is None or isinstance(right, e.Quantity):
        return False
    text = right.span.source.text
    return right.span.start < len(text) and text[right.span.start] == "("


class Elaborating:
    """Collects findings, and takes apart what every declaration has: a name, parameters, a body, fields."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[Diagnostic] = []

    # -- findings ------------------------------------------------------------------------

    def report(
        self, code: str, message: str, span: Span | None, label: str = "", *, help: str | None = None,
        other: tuple[Span | None, str] | None = None, fix: Fix | None = None, severity: Any = "error",
    ) -> None:  # fmt: skip
        labels = [Label(span, label)] if span is not None else []
        if other is not None and other[0] is not None:
            labels.append(Label(other[0], other[1]))
        self.findings.append(Diagnostic(code, message, tuple(labels), help=help, fix=fix, severity=severity))

    def malformed(self, head: Head, word: str, code: str = "NL0122") -> None:
        self.report(
            code, f"malformed `{word}`", head.statement.span, "not in its form",
            help=f"it is written `{FORMS[word]}`",
        )  # fmt: skip

    def twice(self, code: str, what: str, name: str, span: Span | None, first: Span | None) -> None:
        self.report(
            code,
            f"the {what} `{name}` is given twice",
            span,
            "given again here",
            other=(first, "first given here"),
        )

    def unknown(self, head: Head, where: str, known: tuple[str, ...]) -> None:
        """A statement whose head word means nothing in `where`."""
        word = head.word
        if head.words and isinstance(head.words[0], e.Call):
            word = head.words[0].function.text
        if head.body is not None and not head.words:
            if self.findings and self.findings[-1].code == "NL0131":
                return  # the declaration above was just said to lack this very body
            self.report(
                "NL0131", "this `{` belongs to no declaration", head.body.span, "a body of its own",
                help="the `{` stands on the line of the declaration that it opens",
            )  # fmt: skip
            return
        hint = did_you_mean(word, known) if word is not None else None
        if hint is None and word is not None and len(head.words) > 1 and "name = value" in known:
            rest = " ".join(print_expr(one) for one in head.words[1:])
            hint = f"a field is given with `=`, as in `{word} = {rest}`"
        if hint is None:
            hint = f"{where} holds " + ", ".join(f"`{k}`" for k in known)
        said = f"`{word}`" if word is not None else "this"
        self.report("NL0121", f"{said} is no statement of {where}", head.span, "not known here", help=hint)

    def unexpected_label(self, statement: e.Statement, where: str) -> None:
        assert statement.label is not None
        self.report(
            "NL0132", f"a label has no meaning in {where}", statement.label.span, "this label",
            help="labels name the lines of a `block` or `model`; a field is assigned with `=`",
        )  # fmt: skip

    # -- heads with a name, parameters and a body ------------------------------------------

    def named(self, head: Head, word: str) -> tuple[e.Name, list[m.Parameter], e.Body] | None:
        """Name, parameters and body of `word Name(parameters) { }`, or None after a finding."""
        if head.body is None and not head.assigns and len(head.words) == 2:
            self.report(
                "NL0131", f"the {word} has no body", head.statement.span, "`{` is missing",
                help=f"it is written `{FORMS[word]}`, with its `{{` on the same line",
            )  # fmt: skip
            return None
        if head.body is None or len(head.words) not in (2, 3):
            self.malformed(head, word)
            return None
        title = head.words[1]
        if len(head.words) == 3 and not is_spaced(title, head.words[2]):
            self.malformed(head, word)
            return None
        name = title.function if isinstance(title, e.Call) else title
        if not isinstance(name, e.Name) or len(name.parts) != 1:
            self.malformed(head, word)
            return None
        parameters = self.parameters(title.arguments) if isinstance(title, e.Call) else []
        return name, parameters, head.body

    def parameters(self, arguments: tuple[e.Argument, ...]) -> list[m.Parameter]:
        found: list[m.Parameter] = []
        places: dict[str, Span | None] = {}
        for argument in arguments:
            name = argument.name
            if name is None and isinstance(argument.value, e.Name):
                name = argument.value.text
            if name is None or "." in name:
                self.report(
                    "NL0130", f"`{print_expr(argument)}` cannot name a parameter", argument.span,
                    "not a plain name", help="a parameter is a name, or `name = default`",
                )  # fmt: skip
                continue
            if name in places:
                self.twice("NL0125", "parameter", name, argument.span, places[name])
                continue
            places[name] = argument.span
            default = None if argument.name is None else argument.value
            found.append(m.Parameter.model_construct(name=name, default=default, span=argument.span))
        return found

    def assign(self, head: Head, fields: Fields, where: str, known: tuple[str, ...] = ()) -> None:
        """Take `name = value` into `fields`; anything else is a finding."""
        target = head.statement.target
        if head.statement.label is not None:
            self.unexpected_label(head.statement, where)
            return
        if head.value is None or target is None or not isinstance(target, e.Name) or len(target.parts) != 1:
            self.unknown(head, where, (*known, "name = value"))
            return
        name = target.text
        if name in fields.values:
            self.twice("NL0124", "field", name, target.span, fields.spans[name])
            return
        fields.values[name] = head.value
        fields.spans[name] = target.span

    # -- calls with a space --------------------------------------------------------------

    def find_spaced_calls(self, body: e.Expr) -> None:
        """Report every `name (arguments)`: a call is a name that touches its parenthesis."""
        stack: list[e.Expr] = [body]
        while stack:
            node = stack.pop()
            if isinstance(node, e.Phrase):
                for left, right in zip(node.words, node.words[1:], strict=False):
                    if is_spaced(left, right):
                        self.spaced_call(left, right)
            stack.extend(node.children())

    def spaced_call(self, left: e.Expr, right: e.Expr) -> None:
        """Report one call with a space in it."""
        assert left.span is not None and right.span is not None
        gap = Span(left.span.source, left.span.end, right.span.start)
        self.report(
            "NL0127", f"`{print_expr(left)}` and its parenthesis are two words", left.span.to(right.span),
            "a space in a call", help="a call is a name that touches its parenthesis",
            fix=Fix("remove the space", (Edit(gap, ""),)),
        )  # fmt: skip
