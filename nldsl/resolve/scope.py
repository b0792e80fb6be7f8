"""Evaluating numbers, words and clocks where parameters are bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.levels.graph import Clock
from nldsl.records import record
from nldsl.resolve.expanded import Num
from nldsl.resolve.findings import Findings
from nldsl.resolve.modules import Module

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "min": min,
    "max": max,
    "abs": abs,
}


@record
class Amount:
    """A number with a unit."""

    number: Num
    unit: str
    span: Span | None = field(default=None, compare=False)


@record
class Word:
    """A bare word that names a choice (`dot`, `residual`) or a declaration."""

    text: str
    span: Span | None = field(default=None, compare=False)


LARGEST = 2**53
"""Whole numbers beyond this are refused: no width, count or seed is larger, and floats lose units there."""

Value = Num | Amount | Word | e.Expr
"""What a parameter can be bound to; an `Expr` is a pipeline or part handed over as written."""


def substitute(node: e.Expr, symbols: dict[str, e.Expr]) -> e.Expr:
    """`node` with parameter names replaced; only arithmetic is rewritten."""
    match node:
        case e.Name(parts=(name,)) if name in symbols:
            return symbols[name]
        case e.Binary(op=op, left=left, right=right):
            return e.Binary(op, substitute(left, symbols), substitute(right, symbols), span=node.span)
        case e.Unary(op=op, operand=operand):
            return e.Unary(op, substitute(operand, symbols), span=node.span)
        case e.Call(function=function, arguments=arguments):
            new = tuple(e.Argument(substitute(a.value, symbols), a.name, span=a.span) for a in arguments)
            return e.Call(function, new, span=node.span)
        case _:
            return node


def _used(node: e.Expr, given: Span | None, what: str) -> tuple[tuple[Span | None, str], ...]:
    """Where a parameter becomes `what`, when its value was given elsewhere."""
    return ((node.span, f"{what}, here"),) if isinstance(node, e.Name) and given != node.span else ()


def _shown(number: Num) -> str:
    """A number as it would be written before a unit."""
    return print_expr(e.Number(number.value)) if number.value >= 0 else f"({number.value})"


def _power(left: int | float, right: int | float) -> int | float:
    """`left ^ right`; raises before an exact power outgrows all use, and for roots of negative numbers."""
    if left < 0 and not float(right).is_integer():
        raise ValueError("a negative number has no such root")
    if right < 0:
        return float(left) ** right
    if isinstance(left, int) and isinstance(right, int) and right * left.bit_length() > 4096:
        if abs(left) > 1:
            raise OverflowError("too large")
        return left ** (right % 2 + 2)  # 0, 1 and -1 only know whether the exponent is odd
    return left**right


@dataclass(slots=True)
class Scope:
    """Parameters in force, and the file that other names are looked up in."""

    module: Module
    findings: Findings
    values: dict[str, Value] = field(default_factory=dict)
    where: str = ""

    # ------------------------------------------------------------------ numbers

    def number(self, node: e.Expr) -> Num:
        """Evaluate arithmetic; raises `Unresolved` after recording a finding."""
        value = self._number(node)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.findings.stop(
                "NL0205", "this number is not finite", node.span, "evaluates to " + str(value)
            )
        if isinstance(value, int) and abs(value) > LARGEST:
            raise self.findings.stop(
                "NL0205",
                "this whole number is too large",
                node.span,
                "more than 2^53",
                help="write it as a fraction, such as `1e20`, if it is not a count",
            )
        return Num(value, self._symbol(node), node.span)

    def _symbol(self, node: e.Expr) -> e.Expr:
        symbols: dict[str, e.Expr] = {}
        for inner in node.walk():
            if isinstance(inner, e.Name) and len(inner.parts) == 1:
                bound = self.values.get(inner.text)
                if isinstance(bound, Num) and bound.symbol is not None:
                    symbols[inner.text] = bound.symbol
                elif bound is None:
                    value = self._constant(inner)
                    if value is not None:
                        symbols[inner.text] = e.Number(value)
        return substitute(node, symbols)

    def _constant(self, node: e.Name) -> int | float | None:
        found = self.module.lookup(node.text)
        if found is None or not isinstance(found[0], doc.Let):
            return None
        inner = Scope(found[1], self.findings)
        return inner.number(found[0].value).value

    def _number(self, node: e.Expr) -> int | float:
        match node:
            case e.Number(value=value):
                return value
            case e.Name():
                bound = self.values.get(node.text)
                if isinstance(bound, Num):
                    return bound.value
                if isinstance(bound, Amount):
                    raise self._with_unit(node, bound)
                if bound is None:
                    constant = self._constant(node)
                    if constant is not None:
                        return constant
                raise self._no_number(node)
            case e.Quantity(amount=amount, unit="%"):
                return self._number(amount) / 100
            case e.Unary(operand=operand):
                return -self._number(operand)
            case e.Binary(op=op, left=left, right=right):
                return self._binary(node, op, self._number(left), self._number(right))
            case e.Call(function=function) if function.text in FUNCTIONS:
                arguments = [self._number(a) for a in node.positional]
                try:
                    return FUNCTIONS[function.text](*arguments)
                except (TypeError, ValueError, OverflowError) as error:
                    raise self._no_value(node, error) from None
            case e.Quantity(amount=amount, unit=unit):
                raise self.findings.stop(
                    "NL0204",
                    f"`{print_expr(node)}` is an amount, and arithmetic takes bare numbers",
                    node.span,
                    "a number is wanted here",
                    help=f"put the arithmetic in parentheses and the unit behind them, as in "
                    f"`(2 * {print_expr(amount)}) {unit}s`",
                )
            case _:
                raise self.findings.stop(
                    "NL0204",
                    f"`{print_expr(node)}` is not a number",
                    node.span,
                    "a number is wanted here",
                    help="write a number or arithmetic on parameters and constants",
                )

    def _with_unit(self, node: e.Name, bound: Amount) -> Exception:
        amount = _shown(bound.number)
        return self.findings.stop(
            "NL0204",
            f"`{node.text}` is an amount of {bound.unit}s, and a bare number is wanted",
            node.span,
            "a number is wanted here",
            others=((bound.span, f"{amount} {bound.unit}s"),) if bound.span != node.span else (),
            help=f"write `{node.text} = {amount}`",
        )

    def _no_number(self, node: e.Name) -> Exception:
        numbers = [k for k, v in self.values.items() if isinstance(v, Num)]
        near = nearest(node.text, numbers + list(FUNCTIONS))
        hint = (
            f"maybe `{near[0]}`"
            if near
            else f"numbers known here: {', '.join(f'`{n}`' for n in numbers) or 'none'}"
        )
        return self.findings.stop(
            "NL0204", f"`{node.text}` is not a number", node.span, "a number is wanted here", help=hint
        )

    def _binary(self, node: e.Expr, op: str, left: int | float, right: int | float) -> int | float:
        try:
            match op:
                case "+":
                    return left + right
                case "-":
                    return left - right
                case "*":
                    return left * right
                case "/":
                    exact = (
                        isinstance(left, int) and isinstance(right, int) and right != 0 and left % right == 0
                    )
                    return left // right if exact else left / right
                case _:
                    return _power(left, right)
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise self._no_value(node, error) from None

    def _no_value(self, node: e.Expr, error: Exception) -> Exception:
        why = "the result is too large" if isinstance(error, OverflowError) else str(error)
        return self.findings.stop(
            "NL0205", f"`{print_expr(node)}` has no value: {why}", node.span, "has no value"
        )

    def integer(self, node: e.Expr, what: str, *, least: int = 1) -> Num:
        """A whole number of at least `least`."""
        number = self.number(node)
        if isinstance(number.value, float) and number.value.is_integer():
            number = Num(int(number.value), number.symbol, number.span)
        if not isinstance(number.value, int) or number.value < least:
            raise self.findings.stop(
                "NL0205", f"{what} is {number.value}", node.span, f"needs a whole number of at least {least}"
            )
        return number

    def counted(self, number: Num, what: str, fallback: Span | None = None) -> None:
        """Refuse what is not a whole number of at least 1, written as one."""
        if isinstance(number.value, int) and number.value >= 1:
            return
        whole = isinstance(number.value, float) and number.value.is_integer() and number.value >= 1
        raise self.findings.stop(
            "NL0205",
            f"{what} is {number.value}",
            number.span or fallback,
            "needs a whole number of at least 1",
            help=f"write `{int(number.value)}`" if whole else None,
        )

    # ------------------------------------------------------------------ words and clocks

    def value(self, node: e.Expr) -> Value:
        """Whatever an argument is: a number, an amount, a word, or the expression itself."""
        match node:
            case e.Quantity(amount=amount, unit=unit) if unit != "%":
                return Amount(self.number(amount), unit, node.span)
            case e.Name() if node.text in self.values:
                return self.values[node.text]
            case e.Name() if (constant := self._constant(node)) is not None:
                return Num(constant, node, node.span)
            case e.Name():
                return Word(node.text, node.span)
            case e.Text(value=text):
                return Word(text, node.span)
            case e.Number() | e.Binary() | e.Unary() | e.Quantity():
                if any(isinstance(n, e.Pipe | e.Phrase) for n in node.walk()):
                    return node
                return self.number(node)
            case e.Call(function=function) if function.text in FUNCTIONS:
                return self.number(node)
            case _:
                return node

    def word(self, node: e.Expr, what: str, choices: tuple[str, ...]) -> str:
        """A word out of `choices`, through parameters."""
        value = self.value(node)
        text = value.text if isinstance(value, Word) else print_expr(node)
        if text not in choices:
            near = nearest(text, list(choices))
            hint = f"maybe `{near[0]}`" if near else f"use one of {', '.join(f'`{c}`' for c in choices)}"
            raise self.findings.stop(
                "NL0203", f"{what} cannot be `{text}`", node.span, "not a choice", help=hint
            )
        return text

    def amount(self, node: e.Expr, units: tuple[str, ...], what: str) -> tuple[Num, str]:
        """A number with one of `units`."""
        value = self.value(node)
        if isinstance(value, Amount):
            if value.unit not in units:
                raise self.findings.stop(
                    "NL0303",
                    f"{what} is counted in {value.unit}s",
                    value.span or node.span,
                    "this unit does not fit",
                    others=_used(node, value.span, what),
                    help=f"count it in {' or '.join(u + 's' for u in units)}",
                )
            return value.number, value.unit
        if isinstance(value, Num):
            raise self.findings.stop(
                "NL0304",
                f"{what} has no unit",
                value.span or node.span,
                "a bare number",
                others=_used(node, value.span, what),
                help=f"write {' or '.join(f'`{_shown(value)} {u}s`' for u in units[:2])}: "
                "units are never guessed",
            )
        raise self.findings.stop(
            "NL0304",
            f"`{print_expr(node)}` is not an amount",
            node.span,
            "an amount with a unit is wanted here",
            help=f"write for instance `16 {units[0]}s`",
        )

    def clock(self, node: e.Expr) -> Clock:
        """`every N unit [offset M] [carry | flush | drop]`, `never`, or a parameter bound to one."""
        value = self.values.get(node.text) if isinstance(node, e.Name) else None
        if isinstance(value, e.Expr):
            node = value
        if (isinstance(node, e.Name) and node.text == "never") or (
            isinstance(value, Word) and value.text == "never"
        ):
            return Clock(0, "never")
        if not isinstance(node, e.Phrase) or node.head != "every" or len(node.words) < 2:
            raise self.findings.stop(
                "NL0302",
                f"`{print_expr(node)}` is not a clock",
                node.span,
                "a clock is wanted here",
                help="write `every 16 tokens`, `every 4 steps` or `never`",
            )
        number, unit = self.amount(node.words[1], ("token", "step", "sequence", "document"), "a period")
        if not isinstance(number.value, int) or number.value < 1:
            raise self.findings.stop(
                "NL0305",
                f"a period is {number.value}",
                number.span or node.words[1].span,
                "needs a whole number of at least 1",
                others=_used(node.words[1], number.span, "a period"),
            )
        offset, partial, rest = 0, "", list(node.words[2:])
        while rest:
            word = rest.pop(0)
            text = word.text if isinstance(word, e.Name) else ""
            if text in ("drop", "carry", "flush") and not partial:
                partial = text
            elif text == "offset" and rest:
                offset = self._offset(rest.pop(0), unit)
            else:
                raise self.findings.stop(
                    "NL0302",
                    f"`{print_expr(word)}` is not part of a clock",
                    word.span,
                    "not understood",
                    help="after the period a clock takes `offset M` and one of `drop`, `carry`, `flush`",
                )
        return Clock(number.value, unit, offset, partial)  # type: ignore[arg-type]

    def _offset(self, node: e.Expr, unit: str) -> int:
        """The offset of a clock, in the unit of its period; a bare number counts the same."""
        value = self.value(node)
        if not isinstance(value, Amount):
            return int(self.integer(node, "an offset", least=0))
        if value.unit != unit:
            raise self.findings.stop(
                "NL0303",
                f"an offset is counted in {value.unit}s, and its period in {unit}s",
                node.span,
                "this unit does not fit",
                help=f"count both in {unit}s",
            )
        offset = value.number.value
        if isinstance(offset, int) and offset >= 0:
            return offset
        raise self.findings.stop(
            "NL0205", f"an offset is {offset}", node.span, "needs a whole number of at least 0"
        )
