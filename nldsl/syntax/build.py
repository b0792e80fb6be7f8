"""From what the parser reduces to expression nodes with spans; called by lark rule by rule.

Non-goals: nothing is judged here beyond single tokens (escapes, numbers); see `elaborate`.
"""

from __future__ import annotations

import re
from typing import Any

from lark import Token, Transformer

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Source, Span
from nldsl.document import expr as e
from nldsl.syntax.comments import CommentBook, Draft
from nldsl.syntax.words import NO_AMOUNTS

_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_MOST_DIGITS = 400  # beyond, a number is as good as infinite, and Python refuses to print it
_ESCAPE = re.compile(r"\\(.)")


class Grouped:
    """An expression in parentheses, until it is known whether a unit follows."""

    __slots__ = ("end", "node", "start")

    def __init__(self, node: e.Expr, start: int, end: int) -> None:
        self.node, self.start, self.end = node, start, end


class Builder(Transformer[Token, Any]):
    """The callbacks of `nl.lark`.  `begin` points it at a text; one parse at a time."""

    def begin(self, source: Source, text: str, book: CommentBook) -> None:
        """Start on `text`, which is `source.text` with characters blanked out at most."""
        self.source, self.read, self.book = source, text, book
        self.findings: list[Diagnostic] = []

    def span(self, start: int, end: int) -> Span:
        """`[start, end)` as a span of the source."""
        return Span(self.source, start, end)

    def _token_span(self, token: Token) -> Span:
        return self.span(_start(token), _end(token))

    # -- words ---------------------------------------------------------------------------

    def name(self, children: list[Token]) -> e.Name:
        token = children[0]
        return e.Name(tuple(token.split(".")), span=self._token_span(token))

    def number(self, children: list[Token]) -> e.Number:
        token = children[0]
        text = str(token)
        digits = text.replace("_", "")
        exact = digits.isdigit() and len(digits) <= _MOST_DIGITS
        value = int(digits) if exact else float(digits)
        return e.Number(value, text, span=self._token_span(token))

    def text(self, children: list[Token]) -> e.Text:
        token = children[0]
        inner = token[1:-1]
        value = inner if "\\" not in inner else _ESCAPE.sub(lambda m: self._escape(m, token), inner)
        return e.Text(value, span=self._token_span(token))

    def _escape(self, match: re.Match[str], token: Token) -> str:
        letter = match.group(1)
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        start = _start(token) + 1 + match.start()
        self.findings.append(
            Diagnostic(
                "NL0109",
                f"`\\{letter}` is no escape that strings know",
                (Label(self.span(start, start + 2), "this escape"),),
                help='strings know `\\n`, `\\t`, `\\"` and `\\\\`',
            )
        )
        return letter

    def percent(self, children: list[Any]) -> e.Quantity:
        word, sign = children
        amount = _ungroup(word, self)
        start = amount.span.start if amount.span else 0
        return e.Quantity(amount, "%", span=self.span(start, _end(sign)))

    def group(self, children: list[Any]) -> Grouped:
        opening, node, closing = children
        return Grouped(node, _start(opening), _end(closing))

    def tuple(self, children: list[Any]) -> e.TupleOf:
        return e.TupleOf(_nodes(children), span=self.span(_start(children[0]), _end(children[-1])))

    def list(self, children: list[Any]) -> e.ListOf:
        return e.ListOf(_nodes(children), span=self.span(_start(children[0]), _end(children[-1])))

    def call(self, children: list[Any]) -> e.Call:
        opening: Token = children[0]
        start, end = _start(opening), _end(opening)
        function = e.Name(tuple(opening[:-1].split(".")), span=self.span(start, end - 1))
        arguments = tuple(c for c in children if isinstance(c, e.Argument))
        return e.Call(function, arguments, span=self.span(start, _end(children[-1])))

    def argument(self, children: list[Any]) -> e.Argument:
        return e.Argument(children[0], span=children[0].span)

    def named_argument(self, children: list[Any]) -> e.Argument:
        name, _, value = children
        return e.Argument(value, str(name), span=self._token_span(name).to(value.span))

    # -- expressions ---------------------------------------------------------------------

    def phrase(self, children: list[Any]) -> e.Expr:
        if len(children) == 1:
            return _ungroup(children[0], self)
        words: list[e.Expr] = []
        previous: Any = None
        for child in children:
            unit = _unit_of(previous, child)
            if unit is not None:
                amount = words.pop()
                assert amount.span is not None
                words.append(e.Quantity(amount, unit, span=amount.span.to(child.span)))
            else:
                words.append(_ungroup(child, self))
            self._check_gap(previous, child)
            previous = child if unit is None else None
        if len(words) == 1:
            return words[0]
        first, last = words[0].span, words[-1].span
        assert first is not None
        return e.Phrase(tuple(words), span=first.to(last))

    def _check_gap(self, number: Any, word: Any) -> None:
        if not isinstance(number, e.Number) or not isinstance(word, e.Name | e.Number | e.Call):
            return
        if number.span is None or word.span is None or number.span.end != word.span.start:
            return
        known = isinstance(word, e.Name) and word.text in e.UNITS
        gap = Span(number.span.source, number.span.end, number.span.end)
        self.findings.append(
            Diagnostic(
                "NL0110",
                f"`{number.span.text}{word.span.text}` is neither a number nor a name",
                (Label(number.span.to(word.span), "a number runs into a name"),),
                help="put a space between a number and its unit; a name cannot begin with a digit",
                fix=Fix("put a space between", (Edit(gap, " "),)) if known else None,
            )
        )

    def unary(self, children: list[Any]) -> e.Unary:
        sign, operand = children
        return e.Unary("-", operand, span=self._token_span(sign).to(operand.span))

    def binary(self, children: list[Any]) -> e.Binary:
        left, operator, right = children
        return e.Binary(str(operator), left, right, span=left.span.to(right.span))

    def pipe(self, children: list[Any]) -> e.Pipe:
        parts = _nodes(children)
        assert parts[0].span is not None
        return e.Pipe(parts[0], parts[1:], span=parts[0].span.to(parts[-1].span))

    # -- statements ----------------------------------------------------------------------

    def statement(self, children: list[Any]) -> Draft:
        label, target = None, None
        if isinstance(children[0], Token):
            label = self.name([children[0]])
            children = children[2:]
        if len(children) == 3:
            target = children[0]
        value: e.Expr = children[-1]
        first = label or target or value
        assert first.span is not None and value.span is not None
        span = first.span.to(value.span)
        return Draft(span.start, span.end, value, target, label, span)

    def error(self, children: list[Token]) -> Draft:
        return Draft(_start(children[0]), _end(children[0]))

    def body(self, children: list[Any]) -> e.Body:
        start, end = _start(children[0]), _end(children[-1])
        drafts = [c for c in children if isinstance(c, Draft)]
        statements, closing = self.book.finish(drafts, start, end)
        inline = self.read.find("\n", start, end) < 0
        return e.Body(statements, span=self.span(start, end), closing_comments=closing, inline=inline)

    def document(self, children: list[Any]) -> e.Body:
        drafts = [c for c in children if isinstance(c, Draft)]
        end = len(self.read)
        statements, closing = self.book.finish(drafts, 0, end)
        return e.Body(statements, span=self.span(0, end), closing_comments=closing)


def _start(token: Token) -> int:
    return token.start_pos or 0


def _end(token: Token) -> int:
    return token.end_pos or 0


def _nodes(children: list[Any]) -> tuple[e.Expr, ...]:
    return tuple(c for c in children if not isinstance(c, Token))


def _ungroup(word: Any, builder: Builder) -> e.Expr:
    if not isinstance(word, Grouped):
        return word
    node = word.node
    object.__setattr__(
        node, "span", builder.span(word.start, word.end)
    )  # the node is ours until it is handed out
    return node


def _unit_of(amount: Any, word: Any) -> str | None:
    """The unit that `word` gives to `amount`: `4 tokens`, `n tokens`; not `every token`, nor `set steps`."""
    if not isinstance(word, e.Name) or len(word.parts) != 1:
        return None
    unit = e.UNITS.get(word.parts[0])
    if unit is None:
        return None
    node = amount.node if isinstance(amount, Grouped) else amount
    if isinstance(node, e.Name) and (node.text in e.UNITS or node.text in NO_AMOUNTS):
        return None
    if isinstance(amount, e.Number | Grouped):
        return unit
    plural = word.parts[0] != unit
    return unit if isinstance(amount, e.Name) and plural else None
