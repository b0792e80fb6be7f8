"""Formulas of a rule as sums of terms: a number times tensors over tensors, which is what fused steps take.

`rate * (first / c) / (sqrt(second) + eps)` is one term: the number `rate / c`, above it `first`, below it
the sum `sqrt(second) + eps`.  `torch._foreach_addcdiv_` adds such a term in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nldsl.codegen.emit import rule_numbers as n
from nldsl.resolve.algorithm import (
    Figure,
    Formula,
    Function,
    Local,
    Negative,
    Operation,
    Recall,
    Signal,
)


@dataclass(frozen=True, slots=True)
class Held:
    """A list of tensors that has a name: gradients, weights, a memory, a local."""

    name: str
    single: bool = False  # one number for each weight

    def names(self) -> Iterator[str]:
        """The lists that it reads."""
        yield self.name


@dataclass(frozen=True, slots=True)
class Applied:
    """A function of tensors; `numbers` are its further arguments, and `single` as in `Held`."""

    function: str
    tensors: tuple[Sum, ...]
    numbers: tuple[Formula, ...] = ()
    single: bool = False

    def names(self) -> Iterator[str]:
        """The lists that it reads."""
        for one in self.tensors:
            yield from one.names()


@dataclass(frozen=True, slots=True)
class Term:
    """`number` times all of `above` over all of `below`."""

    number: Formula
    above: tuple[Atom, ...] = ()
    below: tuple[Atom, ...] = ()

    def names(self) -> Iterator[str]:
        """The lists that it reads."""
        for atom in (*self.above, *self.below):
            yield from atom.names()

    @property
    def single(self) -> bool:
        """Whether it is one number for each weight at most."""
        return all(atom.single for atom in (*self.above, *self.below))


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of `terms`; `called` is the local that it stands for."""

    terms: tuple[Term, ...]
    called: str = ""

    def names(self) -> Iterator[str]:
        """The lists that it reads."""
        for term in self.terms:
            yield from term.names()

    @property
    def single(self) -> bool:
        """Whether it is one number for each weight at most."""
        return all(term.single for term in self.terms)

    @property
    def atom(self) -> Atom | None:
        """What it is, if it is one thing alone."""
        if len(self.terms) != 1:
            return None
        (term,) = self.terms
        alone = len(term.above) == 1 and not term.below and n.is_figure(term.number, 1)
        return term.above[0] if alone else None


Atom = Held | Applied | Sum


def number(formula: Formula) -> Sum:
    """A number as a sum."""
    return Sum((Term(formula),))


def of_atom(atom: Atom) -> Sum:
    """One atom as a sum."""
    return Sum((Term(n.ONE, (atom,)),))


def plain_number(formula: Formula, inlined: Mapping[str, Formula]) -> bool:
    """Whether a formula is a Python number in a step over weights of one shape."""
    if formula.kind == "tensor":
        return False
    for node in formula.walk():
        if isinstance(node, Recall) or (isinstance(node, Function) and node.name in ("mean", "norm")):
            return False
        if isinstance(node, Local) and node.name in inlined and not plain_number(inlined[node.name], inlined):
            return False
    return True


class Terms:
    """Formulas to sums.  `lists` names the tensors behind signals, memories and locals; `inlined` holds the
    locals that are worked out where they stand; `numbers` are locals that are numbers.
    """

    def __init__(
        self, lists: Mapping[str, str], inlined: Mapping[str, Formula], numbers: frozenset[str]
    ) -> None:
        self.lists = lists
        self.inlined = inlined
        self.numbers = numbers

    def sum(self, formula: Formula) -> Sum:
        """`formula` as a sum of terms."""
        if self._is_number(formula):
            return number(n.folded(formula, self.inlined))
        match formula:
            case Signal() | Recall(query=None):
                return of_atom(Held(self.lists[n.key_of(formula)]))
            case Local(name=name) if name in self.inlined:
                made = self.sum(self.inlined[name])
                return Sum(made.terms, name)
            case Local(name=name):
                return of_atom(Held(self.lists[n.key_of(formula)], formula.kind != "tensor"))
            case Negative(operand=operand):
                return _scaled(self.sum(operand), Figure(kind="number", value=-1))
            case Operation(op="+", left=left, right=right):
                return Sum((*self.sum(left).terms, *self.sum(right).terms))
            case Operation(op="-", left=left, right=right):
                minus = _scaled(self.sum(right), Figure(kind="number", value=-1))
                return Sum((*self.sum(left).terms, *minus.terms))
            case Operation(op="*", left=left, right=right):
                return product(self.sum(left), self.sum(right))
            case Operation(op="/", left=left, right=right):
                return _quotient(self.sum(left), self.sum(right))
            case Operation(left=left, right=right):
                return self._power(left, right, formula.kind != "tensor")
            case Recall(memory=memory, query=query) if query is not None:
                return of_atom(Applied(f"ask {memory}", (self.sum(query),)))
            case Function(name="jacobian", arguments=(Recall(memory=memory, query=query),)):
                assert query is not None
                return of_atom(Applied(f"slope {memory}", (self.sum(query),)))
            case Function(name=name, arguments=arguments):
                return of_atom(self._applied(name, arguments, formula.kind != "tensor"))
            case _:
                raise TypeError(f"no formula: {type(formula).__name__}")

    def _is_number(self, formula: Formula) -> bool:
        if isinstance(formula, Local) and formula.name in self.numbers:
            return True
        if formula.kind == "tensor":
            return False
        inner = [node for node in formula.walk() if isinstance(node, Local)]
        return plain_number(formula, self.inlined) and all(
            one.name in self.numbers or one.name in self.inlined for one in inner
        )

    def _applied(self, name: str, arguments: tuple[Formula, ...], single: bool) -> Atom:
        if name == "identity":
            return Applied("identity", (), arguments, single=False)
        if name in ("min", "max") and self._is_number(arguments[0]):
            arguments = (arguments[1], arguments[0])
        first = self.sum(arguments[0])
        tensors, numbers = [first], []
        for one in arguments[1:]:
            if self._is_number(one):
                numbers.append(n.folded(one, self.inlined))
            else:
                tensors.append(self.sum(one))
        return Applied(name, tuple(tensors), tuple(numbers), single or name in ("mean", "norm"))

    def _power(self, base: Formula, exponent: Formula, single: bool) -> Sum:
        if not self._is_number(exponent):
            if self._is_number(base):  # c^x = exp(x log c)
                log = Function(kind="number", name="log", arguments=(base,))
                return of_atom(Applied("exp", (_scaled(self.sum(exponent), log),), (), single))
            log = of_atom(Applied("log", (self.sum(base),), (), single))
            return of_atom(Applied("exp", (product(log, self.sum(exponent)),), (), single))
        made = self.sum(base)
        if n.is_figure(exponent, 2):
            return product(made, made)
        if n.is_figure(exponent, 0.5):
            return of_atom(Applied("sqrt", (made,), (), single))
        return of_atom(Applied("pow", (made,), (exponent,), single))


def _single(made: Sum) -> Term | None:
    """Its only term."""
    return made.terms[0] if len(made.terms) == 1 else None


def _scaled(made: Sum, factor: Formula) -> Sum:
    terms = tuple(Term(n.times(factor, t.number), t.above, t.below) for t in made.terms)
    return Sum(terms, made.called if n.is_figure(factor, 1) else "")


def _whole(made: Sum) -> Term:
    """A sum as one term."""
    return _single(made) or Term(n.ONE, (made,))


def product(left: Sum, right: Sum) -> Sum:
    """The product of two sums; a sum of several terms stays whole beside other tensors."""
    one, other = _single(left), _single(right)
    if one is not None and not (one.above or one.below):
        return _scaled(right, one.number)
    if other is not None and not (other.above or other.below):
        return _scaled(left, other.number)
    a, b = _whole(left), _whole(right)
    return Sum((Term(n.times(a.number, b.number), (*a.above, *b.above), (*a.below, *b.below)),))


def _quotient(left: Sum, right: Sum) -> Sum:
    below = _single(right)
    if below is not None and not (below.above or below.below):
        return _scaled(left, n.over(n.ONE, below.number))
    a, b = _whole(left), below or Term(n.ONE, (right,))
    return Sum((Term(n.over(a.number, b.number), (*a.above, *b.below), (*a.below, *b.above)),))
