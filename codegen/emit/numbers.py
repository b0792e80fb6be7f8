"""Numbers as code: `4 * dim` where the author wrote it, a literal where nothing better is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nldsl.codegen.emit import code as c
from nldsl.document import expr as e
from nldsl.resolve.expanded import Num

_FUNCTIONS = {
    "sqrt": "math.sqrt",
    "exp": "math.exp",
    "log": "math.log",
    "floor": "math.floor",
    "ceil": "math.ceil",
    "comb": "math.comb",
}


def literal(value: int | float) -> c.Atom:
    """A number as Python writes it, with `_` in long integers.

    >>> literal(20000).text, literal(0.1).text
    ('20_000', '0.1')
    """
    if isinstance(value, int) and abs(value) >= 10_000:
        return c.Atom(f"{value:_}")
    return c.Atom(repr(value))


def number(num: Num, values: dict[str, int | float], use: Callable[[str], str]) -> c.Code:
    """Code for a number; `values` are the parameters in force, `use` notes one that is needed and says how to
    spell it.
    """
    if num.symbol is None or isinstance(num.symbol, e.Number):
        return literal(num.value)
    if (
        not any(isinstance(node, e.Name) and node.text in values for node in num.symbol.walk())
        and len(repr(num.value)) <= 8
    ):
        return literal(num.value)
    whole = isinstance(num.value, int)
    if _evaluate(num.symbol, values, whole) != num.value:
        return literal(num.value)
    return _code(num.symbol, use, whole)


def _code(node: e.Expr, use: Callable[[str], str], whole: bool) -> c.Code:
    match node:
        case e.Number(value=value):
            return literal(value)
        case e.Name():
            return c.Atom(use(node.text))
        case e.Quantity(amount=amount, unit="%"):
            return c.Infix("/", _code(amount, use, False), c.Atom("100"))
        case e.Quantity(amount=amount):
            return _code(amount, use, whole)
        case e.Unary(operand=operand):
            inner = _code(operand, use, whole)
            return (
                c.Atom(f"-{inner.text}") if isinstance(inner, c.Atom) else c.Infix("*", c.Atom("-1"), inner)
            )
        case e.Binary(op=op, left=left, right=right):
            python = {"^": "**", "/": "//" if whole else "/"}.get(op, op)
            return c.Infix(python, _code(left, use, whole), _code(right, use, whole))
        case e.Call(function=function):
            counts = whole and function.text == "comb"
            arguments = tuple(_code(a, use, counts) for a in node.positional)
            return c.Invoke(_FUNCTIONS.get(function.text, function.text), arguments)
        case _:
            raise TypeError(f"no number: {type(node).__name__}")


def _evaluate(node: e.Expr, values: dict[str, int | float], whole: bool) -> int | float | None:
    """What the generated expression will give, or None if it cannot be told."""
    try:
        return _value(node, values, whole)
    except (KeyError, ZeroDivisionError, OverflowError, TypeError, ValueError):
        return None


def _value(node: e.Expr, values: dict[str, int | float], whole: bool) -> int | float:
    match node:
        case e.Number(value=value):
            return value
        case e.Name():
            return values[node.text]
        case e.Quantity(amount=amount, unit="%"):
            return _value(amount, values, False) / 100
        case e.Quantity(amount=amount):
            return _value(amount, values, whole)
        case e.Unary(operand=operand):
            return -_value(operand, values, whole)
        case e.Binary(op=op, left=left, right=right):
            a, b = _value(left, values, whole), _value(right, values, whole)
            match op:
                case "+":
                    return a + b
                case "-":
                    return a - b
                case "*":
                    return a * b
                case "/":
                    return a // b if whole else a / b
                case _:
                    return a**b
        case e.Call(function=function):
            functions: dict[str, Any] = {"min": min, "max": max, "abs": abs, "round": round}
            chosen = functions.get(function.text) or getattr(math, function.text)
            counts = whole and function.text == "comb"
            return chosen(*(_value(a, values, counts) for a in node.positional))
        case _:
            raise TypeError


def needs_math(node: c.Code) -> bool:
    """Whether the code calls into `math`."""
    if isinstance(node, c.Invoke):
        return node.function.startswith("math.") or any(needs_math(a) for a in node.arguments)
    return isinstance(node, c.Infix) and (needs_math(node.left) or needs_math(node.right))
