"""Numbers of a rule: sums and products that fold where they can, and whether two formulas say the same.

Two formulas are taken to be equal when they agree at a few random points (Schwartz and Zippel): options,
memories and weights stand there as independent numbers of ordinary size, so that each term counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from nldsl.resolve.algorithm import (
    Figure,
    Formula,
    Function,
    Local,
    Negative,
    Operation,
    Option,
    Recall,
    Signal,
)

ONE = Figure(kind="number", value=1)
ZERO = Figure(kind="number", value=0)
POINTS = 12


def is_figure(formula: Formula, value: float) -> bool:
    """Whether `formula` is this number, written out."""
    return isinstance(formula, Figure) and formula.value == value


def plus(left: Formula, right: Formula) -> Formula:
    """`left + right`, folded."""
    if is_figure(left, 0):
        return right
    if is_figure(right, 0):
        return left
    if isinstance(left, Figure) and isinstance(right, Figure):
        return Figure(kind="number", value=left.value + right.value)
    if _negated(right):
        return minus(left, negative(right))
    return Operation(kind="number", op="+", left=left, right=right)


def minus(left: Formula, right: Formula) -> Formula:
    """`left - right`, folded: `1 - (1 - beta)` is `beta`."""
    if is_figure(right, 0):
        return left
    if isinstance(left, Figure) and isinstance(right, Figure):
        return Figure(kind="number", value=left.value - right.value)
    if isinstance(right, Operation) and right.op == "-" and right.left == left:
        return right.right
    if is_figure(left, 0):
        return negative(right)
    if _negated(right):
        return plus(left, negative(right))
    return Operation(kind="number", op="-", left=left, right=right)


def negative(operand: Formula) -> Formula:
    """`-operand`, folded into a first factor where there is one."""
    match operand:
        case Negative(operand=inner):
            return inner
        case Figure(value=value):
            return Figure(kind="number", value=-value)
        case Operation(op="-", left=left, right=right):
            return Operation(kind="number", op="-", left=right, right=left)
        case Operation(op="*" | "/" as op, left=left, right=right):
            return Operation(kind="number", op=op, left=negative(left), right=right)
        case _:
            return Negative(kind="number", operand=operand)


def times(left: Formula, right: Formula) -> Formula:
    """`left * right`, folded; a quotient stays last, so that `a * (1 / b)` is `a / b`."""
    if is_figure(left, 0) or is_figure(right, 0):
        return ZERO
    if is_figure(left, 1):
        return right
    if is_figure(right, 1):
        return left
    if isinstance(left, Figure) and isinstance(right, Figure):
        return Figure(kind="number", value=left.value * right.value)
    if _negated(right):
        return negative(times(left, negative(right)))
    if is_figure(left, -1):
        return negative(right)
    if isinstance(right, Operation) and right.op == "/":
        return Operation(kind="number", op="/", left=times(left, right.left), right=right.right)
    return Operation(kind="number", op="*", left=left, right=right)


def over(left: Formula, right: Formula) -> Formula:
    """`left / right`, folded."""
    if is_figure(right, 1) or is_figure(left, 0):
        return left
    if left == right:
        return ONE
    return Operation(kind="number", op="/", left=left, right=right)


def _negated(formula: Formula) -> bool:
    """Whether it begins with a minus."""
    match formula:
        case Negative():
            return True
        case Figure(value=value):
            return value < 0
        case Operation(op="*" | "/", left=left):
            return _negated(left)
        case _:
            return False


def folded(formula: Formula, known: Mapping[str, Formula]) -> Formula:
    """A number with the locals in `known` put in, and folded."""
    match formula:
        case Local(name=name) if name in known:
            return folded(known[name], known)
        case Negative(operand=operand):
            return negative(folded(operand, known))
        case Operation(op=op, left=left, right=right) if op in _FOLDS:
            return _FOLDS[op](folded(left, known), folded(right, known))
        case Operation(left=left, right=right):
            return replace(formula, left=folded(left, known), right=folded(right, known))
        case Function(arguments=arguments):
            return replace(formula, arguments=tuple(folded(one, known) for one in arguments))
        case _:
            return formula


_FOLDS = {"+": plus, "-": minus, "*": times, "/": over}


# --------------------------------------------------------------------------- values

_FUNCTIONS = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "abs": abs,
    "sign": lambda x: float(x > 0) - float(x < 0),
    "min": min,
    "max": max,
}
ELEMENTWISE = frozenset(_FUNCTIONS)
"""Functions that act on each number by itself."""


def key_of(formula: Formula) -> str:
    """The name under which a leaf stands among the values; tensors that are no leaves have their text."""
    match formula:
        case Recall(memory=memory, query=None):
            return f"memory {memory}"
        case Option(name=name):
            return f"option {name}"
        case Signal(name=name):
            return f"signal {name}"
        case Local(name=name):
            return f"local {name}"
        case _:
            return repr(formula)


def evaluate(formula: Formula, values: Mapping[str, float], locals_: Mapping[str, Formula]) -> float:
    """What `formula` gives for single numbers.  Raises `ArithmeticError` or `ValueError` where it gives none.

    A local that is among `values` is taken from there, else it is worked out; what acts on whole matrices
    has to be among `values`.
    """
    known = values.get(key_of(formula))
    if known is not None:
        return known
    match formula:
        case Figure(value=value):
            return float(value)
        case Local(name=name):
            return evaluate(locals_[name], values, locals_)
        case Negative(operand=operand):
            return -evaluate(operand, values, locals_)
        case Operation(op=op, left=left, right=right):
            a, b = evaluate(left, values, locals_), evaluate(right, values, locals_)
            if op == "+":
                return a + b
            if op == "-":
                return a - b
            if op == "*":
                return a * b
            if op == "/":
                return a / b
            raised = a**b
            if isinstance(raised, complex):
                raise ValueError("a root of a number below 0")
            return float(raised)
        case Function(name=name, arguments=arguments) if name in _FUNCTIONS:
            return float(_FUNCTIONS[name](*(evaluate(a, values, locals_) for a in arguments)))
        case _:
            raise ValueError(f"no single number: {formula!r}")


def leaves(formula: Formula, locals_: Mapping[str, Formula]) -> Iterator[Formula]:
    """The leaves of `formula`; locals are worked out where `locals_` has them."""
    for node in formula.walk():
        if isinstance(node, Local) and node.name in locals_:
            yield from leaves(locals_[node.name], locals_)
        elif isinstance(node, Option | Signal | Recall | Local):
            yield node


def points(names: frozenset[str]) -> Iterator[dict[str, float]]:
    """Values of ordinary size for `names`, the same at each call; `step` is a whole number."""
    chance = random.Random(20240607)  # noqa: S311 - points, not secrets
    for _ in range(POINTS):
        found = {name: chance.uniform(0.1, 0.9) for name in sorted(names)}
        for name in found:
            if name == "signal step":
                found[name] = float(chance.randint(2, 9))
            elif name in ("signal rows", "signal columns"):
                found[name] = float(chance.randint(1, 9))
        yield found


def same(left: Formula, right: Formula, locals_: Mapping[str, Formula] | None = None) -> bool:
    """Whether the two formulas agree, as far as random points tell."""
    if left == right:
        return True
    known = locals_ or {}
    names = frozenset(key_of(leaf) for one in (left, right) for leaf in leaves(one, known))
    return all(agree(left, right, values, known) for values in points(names))


def agree(left: Formula, right: Formula, values: Mapping[str, float], locals_: Mapping[str, Formula]) -> bool:
    """Whether both formulas give the same number for these values."""
    try:
        a, b = evaluate(left, values, locals_), evaluate(right, values, locals_)
    except (ArithmeticError, ValueError):
        return False
    return math.isclose(a, b, rel_tol=1e-10, abs_tol=1e-13)
