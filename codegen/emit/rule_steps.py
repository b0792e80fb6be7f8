"""Steps over lists of tensors: sums of terms as calls of `torch._foreach_*`, in place where they can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit import rule_numbers as n
from nldsl.codegen.emit.rule_terms import Applied, Atom, Held, Sum, Term
from nldsl.resolve.algorithm import Formula, Operation, Option

_CALLED = {
    "sqrt": "root",
    "exp": "power",
    "log": "logs",
    "abs": "sizes",
    "sign": "signs",
    "min": "least",
    "max": "most",
    "pow": "power",
    "mean": "average",
    "norm": "length",
    "orthogonal": "turned",
    "transposed": "turned",
    "times": "product",
    "solve": "solved",
    "identity": "unit",
}
_ARGUMENTS = {
    "orthogonal": ("direction",),
    "transposed": ("matrix",),
    "times": ("left", "right"),
    "solve": ("left", "right"),
}
IN_PLACE = frozenset({"sqrt", "exp", "log", "abs", "sign"})
"""Functions with a form of their own over lists, which may work in place."""


@dataclass(frozen=True, slots=True)
class Value:
    """A list at hand; one that is `fresh` is nobody else's, so that it may be changed."""

    name: str
    fresh: bool
    single: bool = False


class Steps:
    """Collects the statements of one method.  `write_number` makes code of numbers, `map_call` of what a
    memory answers (its function, its name, the list of queries).
    """

    def __init__(
        self,
        taken: set[str],
        write_number: Callable[[Formula], c.Code],
        map_call: Callable[[str, str, str], c.Code],
    ) -> None:
        self.taken = taken
        self.number = write_number
        self.map_call = map_call
        self.body: list[c.Step] = []
        self.helpers: set[str] = set()

    # ------------------------------------------------------------------- names and calls

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, or `wanted2` and so on where it is taken."""
        name, tries = wanted, 1
        while name in self.taken:
            tries += 1
            name = f"{wanted}{tries}"
        self.taken.add(name)
        return name

    def call(self, operation: str, *arguments: c.Code | str, **named: c.Code) -> c.Code:
        """`torch._foreach_operation(...)`."""
        return c.Invoke(
            f"torch._foreach_{operation}", tuple(c.code(a) for a in arguments), tuple(named.items())
        )

    def do(self, operation: str, *arguments: c.Code | str, **named: c.Code) -> None:
        """A call for its effect."""
        self.body.append(c.Do(self.call(operation, *arguments, **named)))

    def let(self, wanted: str, value: c.Code, *, single: bool = False, fresh: bool = True) -> Value:
        """A new list."""
        name = self.fresh_name(wanted)
        self.body.append(c.Assign(c.name(name), value))
        return Value(name, fresh, single)

    # ------------------------------------------------------------------- values

    def value(self, made: Sum, wanted: str = "") -> Value:
        """The list that `made` is; `wanted` names it if it has to be made."""
        atom = made.atom
        wanted = made.called or wanted
        if atom is not None:
            return self.atom(atom, wanted)
        if (mixed := self._mixed(made, wanted)) is not None:
            return mixed
        if (optional := self._optional(made, wanted)) is not None:
            return optional
        terms = sorted(made.terms, key=self._place)
        first, rest = terms[0], terms[1:]
        wanted = wanted or (_made_by(first) if rest else "")
        if rest and self._bare(first) and (added := self._added(first, rest[0], wanted)) is not None:
            whole, rest = added, rest[1:]
        else:
            whole = self.term(first, wanted)
            if not whole.fresh:
                whole = self.let(wanted, self.call("clone", whole.name), single=whole.single)
        for term in rest:
            self.add(whole.name, term)
        return whole

    def _place(self, term: Term) -> tuple[bool, bool, bool, bool]:
        """Terms that a sum begins with best stand first; a number is no list to begin with."""
        number = not (term.above or term.below)
        return number, any(map(_unit, term.above)), term.single, not n.is_figure(term.number, 1)

    def _bare(self, term: Term) -> bool:
        return (
            len(term.above) == 1
            and isinstance(term.above[0], Held)
            and not term.below
            and n.is_figure(term.number, 1)
        )

    def _added(self, first: Term, second: Term, wanted: str) -> Value | None:
        """The sum of a list that has to stay as it is and one more term, in one pass."""
        (held,) = first.above
        assert isinstance(held, Held)
        if held.single or any(_unit(a) for a in (*second.above, *second.below)):
            return None
        if not (second.above or second.below):
            return self.let(wanted, self.call("add", held.name, self.number(second.number)))
        operation, lists = self._prepared(second)
        return self.let(
            wanted,
            self._accumulated(operation, held.name, lists, second.number),
        )

    def _mixed(self, made: Sum, wanted: str) -> Value | None:
        """`(1 - w) a + w b` in one pass."""
        if len(made.terms) != 2 or any(len(t.above) != 1 or t.below or t.single for t in made.terms):
            return None
        one, other = made.terms
        if n.is_figure(one.number, 1) or not n.same(one.number, n.minus(n.ONE, other.number)):
            return None
        if len(_written(other.number)) > len(_written(one.number)):
            one, other = other, one
        a, b = self.atom(one.above[0], ""), self.atom(other.above[0], "")
        weight = self.number(other.number)
        if a.fresh:
            self.do("lerp_", a.name, b.name, weight)
            return a
        return self.let(wanted or "mix", self.call("lerp", a.name, b.name, weight))

    def _optional(self, made: Sum, wanted: str) -> Value | None:
        """`a + decay * b`, which is `a` itself where the option is 0."""
        if len(made.terms) != 2 or not self._bare(made.terms[0]):
            return None
        first, second = made.terms
        if not isinstance(second.number, Option) or len(second.above) != 1 or second.below:
            return None
        (held,), (other,) = first.above, second.above
        if not isinstance(held, Held) or held.name != "grads" or not isinstance(other, Held) or other.single:
            return None
        rate = self.number(second.number)
        added = self.call("add", held.name, other.name, alpha=rate)
        name = self.fresh_name(wanted or "total")
        text = c.Conditional(added, rate, c.name(held.name))
        self.body.append(c.Assign(c.name(name), text))
        return Value(name, fresh=False)

    def atom(self, atom: Atom, wanted: str) -> Value:
        """The list that an atom is."""
        match atom:
            case Held(name=name, single=single):
                return Value(name, fresh=False, single=single)
            case Sum():
                return self.value(atom, wanted)
            case Applied():
                return self._applied(atom, wanted)

    def _applied(self, atom: Applied, wanted: str) -> Value:
        name = atom.function
        wanted = wanted or _CALLED.get(name, "answer")
        if name in IN_PLACE or name == "pow":
            return self._changed(atom, wanted)
        if name in ("min", "max"):
            return self._bounded(atom, wanted)
        if name == "identity":
            self.helpers.add(name)
            (size,) = atom.numbers
            return self.let(wanted, c.call(name, "weights", self.number(size)), fresh=False)
        called = _ARGUMENTS.get(name, ("rows",))
        lists = [self.value(one, word) for one, word in zip(atom.tensors, called, strict=True)]
        if name.startswith(("ask ", "slope ")):
            kind, memory = name.split(" ")
            return self.let(wanted, self.map_call(kind, memory, lists[0].name))
        self.helpers.add(name)
        arguments = (*(c.name(one.name) for one in lists), *(self.number(one) for one in atom.numbers))
        return self.let(wanted, c.Invoke(name, arguments), single=atom.single)

    def _changed(self, atom: Applied, wanted: str) -> Value:
        """A function of one list, number by number."""
        numbers = tuple(self.number(one) for one in atom.numbers)
        (inner,) = atom.tensors
        given = self.value(inner, wanted)
        if given.fresh:
            self.do(f"{atom.function}_", given.name, *numbers)
            return given
        return self.let(wanted, self.call(atom.function, given.name, *numbers), single=given.single)

    def _bounded(self, atom: Applied, wanted: str) -> Value:
        """The smaller or larger of a list and a number, or of two lists."""
        operation = {"min": "clamp_max", "max": "clamp_min"}[atom.function]
        given = self.value(atom.tensors[0], wanted)
        bound: c.Code
        if atom.numbers:
            bound = self.number(atom.numbers[0])
        else:
            operation = {"min": "minimum", "max": "maximum"}[atom.function]
            other = self.value(atom.tensors[1])
            if given.single and not other.single:
                given, other = other, given
            bound = c.name(other.name)
        if given.fresh:
            self.do(f"{operation}_", given.name, bound)
            return given
        return self.let(wanted, self.call(operation, given.name, bound), single=given.single)

    # ------------------------------------------------------------------- terms

    def term(self, term: Term, wanted: str = "") -> Value:
        """The list that a term is."""
        if not term.above:
            return self._inverse(term, wanted)
        above = sorted(term.above, key=lambda a: a.single)
        whole = self.atom(above[0], wanted)
        for atom in above[1:]:
            whole = self._combined("mul", whole, self.atom(atom, ""), wanted)
        for atom in term.below:
            whole = self._combined("div", whole, self.atom(atom, ""), wanted)
        return self._times(whole, term.number, wanted)

    def _inverse(self, term: Term, wanted: str) -> Value:
        below = sorted(term.below, key=lambda a: a.single)
        whole = self.atom(below[0], wanted)
        for atom in below[1:]:
            whole = self._combined("mul", whole, self.atom(atom, ""), wanted)
        if whole.fresh:
            self.do("reciprocal_", whole.name)
        else:
            whole = self.let(wanted or "inverse", self.call("reciprocal", whole.name), single=whole.single)
        return self._times(whole, term.number, wanted)

    def _combined(self, operation: str, left: Value, right: Value, wanted: str) -> Value:
        if left.fresh and (right.single or not left.single):
            self.do(f"{operation}_", left.name, right.name)
            return left
        if operation == "mul" and right.fresh and not right.single:
            self.do("mul_", right.name, left.name)
            return right
        both = left.single and right.single
        return self.let(wanted or "product", self.call(operation, left.name, right.name), single=both)

    def _times(self, whole: Value, number: Formula, wanted: str) -> Value:
        if n.is_figure(number, 1):
            return whole
        operation, factor = "mul", number
        if isinstance(number, Operation) and number.op == "/" and n.is_figure(number.left, 1):
            operation, factor = "div", number.right
        if n.is_figure(number, -1):
            arguments: tuple[c.Code, ...] = ()
            operation = "neg"
        else:
            arguments = (self.number(factor),)
        if whole.fresh:
            self.do(f"{operation}_", whole.name, *arguments)
            return whole
        made = self.call(operation, whole.name, *arguments)
        return self.let(wanted or "scaled", made, single=whole.single)

    # ------------------------------------------------------------------- into a list

    def add(self, target: str, term: Term) -> None:
        """`target += term`, in one pass where torch has one."""
        if not (term.above or term.below):
            self.do("add_", target, self.number(term.number))
            return
        if len(term.above) == 1 and not term.below and _unit(term.above[0]):
            self.helpers.add("add_identity")
            self.body.append(c.Do(c.call("add_identity", target, self.number(term.number))))
            return
        operation, lists = self._prepared(term)
        self.body.append(c.Do(self._accumulated(f"{operation}_", target, lists, term.number)))

    def _prepared(self, term: Term) -> tuple[str, tuple[str, ...]]:
        """`add`, `addcmul` or `addcdiv`, and the lists that it takes."""
        above, below = list(term.above), list(term.below)
        if len(above) == 2 and not below:
            return "addcmul", (self.atom(above[0], "").name, self.atom(above[1], "").name)
        if above and below:
            return "addcdiv", (self._product(above, ""), self._product(below, "divisor"))
        return "add", (self.term(Term(n.ONE, term.above, term.below)).name,)

    def _product(self, atoms: list[Atom], wanted: str) -> str:
        """The list that the product of `atoms` is."""
        if len(atoms) == 1:
            return self.atom(atoms[0], wanted).name
        return self.term(Term(n.ONE, tuple(atoms)), wanted).name

    def _accumulated(self, operation: str, target: str, lists: tuple[str, ...], number: Formula) -> c.Code:
        plain = operation.rstrip("_") == "add"
        mark = "_" if operation.endswith("_") else ""
        if n.is_figure(number, 1):
            return self.call(operation, target, *lists)
        if plain and n.is_figure(number, -1):
            return self.call(f"sub{mark}", target, *lists)
        word = "alpha" if plain else "value"
        return self.call(operation, target, *lists, **{word: self.number(number)})

    def assign(self, target: str, made: Sum) -> None:
        """`target` becomes `made`, in place: scaled by its own factor, then term after term."""
        own = [t for t in made.terms if t.above == (Held(target),) and not t.below]
        others = [t for t in made.terms if t not in own]
        if any(target in t.names() for t in others):
            if own and not _keeps(own):
                self._replaced(target, [*others, *own])
                return
            others = [self._set_aside(t) if target in t.names() else t for t in others]
        if self._averaged(target, own, others):
            return
        if not own:
            self._replaced(target, others)
            return
        factor = own[0].number
        for one in own[1:]:
            factor = n.plus(factor, one.number)
        self._kept(target, factor)
        for one in others:
            self.add(target, one)

    def _set_aside(self, term: Term) -> Term:
        """A term worked out before its target changes."""
        made = self.term(Term(n.ONE, term.above, term.below))
        if not made.fresh:
            made = self.let("before", self.call("clone", made.name), single=made.single)
        return Term(term.number, (Held(made.name, made.single),))

    def _averaged(self, target: str, own: list[Term], others: list[Term]) -> bool:
        """`(1 - w) target + w value` in one pass."""
        if len(own) != 1 or len(others) != 1 or others[0].below or len(others[0].above) != 1:
            return False
        (other,) = others
        if not n.same(own[0].number, n.minus(n.ONE, other.number)):
            return False
        given = self.atom(other.above[0], "")
        if given.single:
            return False
        self.do("lerp_", target, given.name, self.number(other.number))
        return True

    def _replaced(self, target: str, others: list[Term]) -> None:
        if not others:
            self.do("zero_", target)
            return
        made = self.value(Sum(tuple(others)))
        if made.single:
            self.do("zero_", target)
            self.do("add_", target, made.name)
            return
        self.do("copy_", target, made.name)

    def _kept(self, target: str, factor: Formula) -> None:
        if n.is_figure(factor, 1):
            return
        step = c.Do(self.call("mul_", target, self.number(factor)))
        switch = _switch(factor)
        if switch is None:
            self.body.append(step)
            return
        self.body.append(c.Nested(f"if {switch}", (step,)))


def _made_by(term: Term) -> str:
    """What a sum that begins with `term` is called."""
    first = term.above[0] if term.above else None
    return _CALLED.get(first.function, "total") if isinstance(first, Applied) else "total"


def _unit(atom: Atom) -> bool:
    return isinstance(atom, Applied) and atom.function == "identity"


def _written(formula: Formula) -> list[Formula]:
    return list(formula.walk())


def _keeps(own: list[Term]) -> bool:
    """Whether one of the terms is the list itself."""
    return any(n.is_figure(one.number, 1) or _switch(one.number) is not None for one in own)


def _switch(factor: Formula) -> str | None:
    """The option that makes `1 - rate * option` 1 when it is 0."""
    if not (isinstance(factor, Operation) and factor.op == "-" and n.is_figure(factor.left, 1)):
        return None
    product = factor.right
    options: list[str] = []
    while isinstance(product, Operation) and product.op == "*":
        if not isinstance(product.right, Option):
            return None
        options.append(product.right.name)
        product = product.left
    if not isinstance(product, Option):
        return None
    options = [one for one in (*options, product.name) if one != "rate"]
    return options[0] if len(options) == 1 else None
