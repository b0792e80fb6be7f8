"""Declared rules whose formulas are those of a word: what has the algebra of `momentum` runs as `momentum`.

Formulas are multiplied out into sums of products and compared as such, never by name.  A rule is

    gd          w - c rate g
    momentum    w - d m         with  m <- b m + c rate g     (rate inside the average)
                w - d rate m    with  m <- b m + c g          the same where the rate is one number
    muon        w - d rate NS(m)  with  m <- b m + g, or NS(g), in five rounds
"""

from __future__ import annotations

import math

from nldsl.records import record
from nldsl.resolve.algorithm import (
    Algorithm,
    Figure,
    Formula,
    Function,
    Local,
    Negative,
    Operation,
    Option,
    Recall,
    RuleMemory,
    Signal,
    constant,
)

Product = tuple[str, ...]
Sum = dict[Product, float]
"""Products of names, each sorted, with their factors: `{("grad", "rate"): -1.0}`."""

ROUNDS = 5
"""Rounds of Newton-Schulz that the word `muon` takes."""


@record
class Recognised:
    """The word whose algebra a rule has, its momentum, and a factor for the rate; `one_rate`: only while the
    rate is one number.
    """

    rule: str
    momentum: float = 0.0
    factor: float = 1.0
    one_rate: bool = False


def recognised(algorithm: Algorithm, shapes: tuple[tuple[int, int], ...]) -> Recognised | None:
    """The word that means what `algorithm` does to weights of these shapes (rows, columns), if one does."""
    found = {_recognised(algorithm, shape) for shape in shapes or ((0, 0),)}
    return found.pop() if len(found) == 1 else None


def _recognised(algorithm: Algorithm, shape: tuple[int, int]) -> Recognised | None:
    if len(algorithm.memories) > 1:
        return None
    terms = _Terms(algorithm, dict(zip(("rows", "columns"), shape, strict=True)))
    weight = terms.of(algorithm.weight)
    if weight is None or weight.pop(("weight",), 0.0) != 1.0 or len(weight) != 1:
        return None
    (product, factor), memory = weight.popitem(), _share(algorithm, terms)
    if algorithm.memories and memory is None:
        return None
    turned = [name for name in product if name in terms.turned]
    if turned:
        return _orthogonal(product, factor, terms.turned[turned[0]], memory)
    match memory:
        case None if product == ("grad", "rate"):
            made = Recognised("gd", 0.0, -factor)
        case (keeps, scale, ("grad", "rate")) if product == ("memory",):
            made = Recognised("gd", keeps, -factor * scale)
        case (keeps, scale, ("grad",)) if product == ("memory", "rate"):
            made = Recognised("gd", keeps, -factor * scale, one_rate=True)
        case _:
            return None
    return made if made.factor > 0 else None


def _orthogonal(
    product: Product, factor: float, inside: Sum, memory: tuple[float, float, Product] | None
) -> Recognised | None:
    """Newton-Schulz of the gradient, or of a sum of gradients that is neither scaled nor an average."""
    if len(product) != 2 or "rate" not in product or len(inside) != 1:
        return None
    (what, scale), keeps = next(iter(inside.items())), 0.0
    if memory is not None:
        keeps, share, written = memory
        if what != ("memory",) or written != ("grad",):
            return None
        scale *= share
    elif what != ("grad",):
        return None
    if abs(scale) != 1.0 or -factor * scale <= 0:
        return None
    return Recognised("muon", keeps, -factor * scale)


def _share(algorithm: Algorithm, terms: _Terms) -> tuple[float, float, Product] | None:
    """Of the one memory, what it keeps, and what of which product it adds; None where it does more."""
    if not algorithm.memories:
        return None
    memory = algorithm.memories[0]
    plain = memory.map.kind == "vector" and memory.key is None and memory.update is None
    if not plain or memory.read == "before":
        return None
    after = terms.of(_written(memory))
    if after is None:
        return None
    keeps = after.pop(("memory",), 0.0)
    if len(after) != 1 or not 0 <= keeps <= 1:
        return None
    product, scale = after.popitem()
    return keeps, scale, product


def _written(memory: RuleMemory) -> Formula:
    """What a memory without a key holds after a write."""
    own: Formula = Recall("tensor", memory.name)
    kept = own if memory.retain is None else Operation("tensor", "*", memory.retain, own)
    change = Operation("tensor", "-", memory.value, kept) if memory.objective == "l2" else memory.value
    return Operation("tensor", "+", kept, Operation("tensor", "*", memory.rate, change))


class _Terms:
    """Formulas of one rule multiplied out; `turned` holds what is inside of each orthogonal part."""

    def __init__(self, algorithm: Algorithm, sizes: dict[str, int]) -> None:
        self.algorithm, self.sizes = algorithm, sizes
        self.locals = dict(algorithm.locals)
        self.turned: dict[str, Sum] = {}

    def of(self, formula: Formula) -> Sum | None:
        """The sum of products that a formula is; None where it is none."""
        match formula:
            case Figure(value=value):
                return {(): float(value)}
            case Option(name="rate"):
                return {("rate",): 1.0}
            case Option(name=name):
                return {(): float(self.algorithm.options[name])}
            case Signal(name="rows" | "columns" as name):
                return {(): float(self.sizes[name])} if self.sizes[name] else None
            case Signal(name="grad" | "weight" as name):
                return {(name,): 1.0}
            case Local(name=name):
                return self.of(self.locals[name])
            case Recall(query=None):
                return {("memory",): 1.0}
            case Negative(operand=operand):
                return _product(self.of(operand), {(): -1.0})
            case Operation(op=op, left=left, right=right):
                return self._operation(op, self.of(left), self.of(right))
            case Function(name="orthogonal", arguments=(inner, rounds)):
                return self._turned(self.of(inner), constant(rounds, self.algorithm.options))
            case Function(arguments=arguments):
                return self._number(formula, [self.of(one) for one in arguments])
            case _:
                return None

    def _operation(self, op: str, left: Sum | None, right: Sum | None) -> Sum | None:
        if left is None or right is None:
            return None
        match op:
            case "+":
                return _sum(left, right)
            case "-":
                return _sum(left, {name: -factor for name, factor in right.items()})
            case "*":
                return _product(left, right)
            case "/":
                number = _alone(right)
                return _product(left, {(): 1 / number}) if number else None
            case _:
                base, power = _alone(left), _alone(right)
                if base is None or power is None or (base <= 0 and power != int(power)):
                    return None
                return {(): math.pow(base, power)} if base or power > 0 else None

    def _turned(self, inside: Sum | None, rounds: float | None) -> Sum | None:
        if inside is None or rounds != ROUNDS:
            return None
        name = f"turned {len(self.turned)}"
        self.turned[name] = inside
        return {(name,): 1.0}

    def _number(self, formula: Function, arguments: list[Sum | None]) -> Sum | None:
        numbers = [None if one is None else _alone(one) for one in arguments]
        figures = tuple(Figure("number", one) for one in numbers if one is not None)
        if len(figures) < len(arguments):
            return None
        value = constant(Function(formula.kind, formula.name, figures), {})
        return None if value is None else {(): value}


def _alone(terms: Sum) -> float | None:
    """The number that a sum is; None where it reads something."""
    if not terms:
        return 0.0
    return terms.get(()) if len(terms) == 1 else None


def _sum(left: Sum, right: Sum) -> Sum:
    made = {name: left.get(name, 0.0) + right.get(name, 0.0) for name in {**left, **right}}
    return {name: factor for name, factor in made.items() if factor}


def _product(left: Sum | None, right: Sum | None) -> Sum | None:
    if left is None or right is None:
        return None
    made: Sum = {}
    for a, x in left.items():
        for b, y in right.items():
            made = _sum(made, {tuple(sorted((*a, *b))): x * y})
    return made
