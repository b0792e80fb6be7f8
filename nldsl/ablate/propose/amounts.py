"""Amounts of a spec: where each was given, what it is, and what halves or doubles it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.ablate.propose.subject import Part, Subject
from nldsl.document import expr as e
from nldsl.document import model as doc


@dataclass(frozen=True, slots=True)
class Amount:
    """A whole number, perhaps of `unit`, that stands inside the value at `path`.

    `value` is the whole value and `node` its part that is the amount.
    """

    path: str
    value: e.Expr
    node: e.Expr
    number: int
    unit: str

    def times(self, factor: float) -> e.Expr | None:
        """The value with the amount `factor` times as large; None where that is no whole number above 0."""
        new = self.number * factor
        if new < 1 or new != int(new):
            return None
        return _exchanged(self.value, self.node, amount(int(new), self.unit))

    def shown(self, factor: float = 1) -> str:
        """The amount in words."""
        number = int(self.number * factor)
        return f"{number} {self.unit}{'' if number == 1 else 's'}" if self.unit else str(number)


def amount(number: int, unit: str) -> e.Expr:
    """`16 tokens`, or `16` where `unit` is empty."""
    plain = e.Number(number)
    return e.Quantity(plain, unit) if unit else plain


def amounts_in(subject: Subject, part: Part, path: str, value: e.Expr) -> Iterator[Amount]:
    """The amounts that a value of a memory holds: its own, and those that its parameters were given."""
    for node in value.walk():
        if isinstance(node, e.Quantity):
            literal = _literal(node)
            if literal is not None:
                yield Amount(path, value, node, *literal)
        elif isinstance(node, e.Name) and len(node.parts) == 1:
            yield from given_to(subject, part.declaration, node.text)


def given_to(
    subject: Subject, declaration: doc.Memory | doc.Block | doc.Model, name: str
) -> Iterator[Amount]:
    """The amounts that a parameter has in its uses, through the parameters of what surrounds them."""
    parameter = next((p for p in declaration.parameters if p.name == name), None)
    if parameter is None:
        return
    left = False
    for place in subject.places(declaration):
        given = place.argument(name, declaration.parameters)
        if given is None:
            left = True
        elif place.path is not None:
            yield from _traced(subject, place.line.owner, given, f"{place.path}.{name}")
    model = isinstance(declaration, doc.Model)
    given = _of_model(subject, name, declaration) if isinstance(declaration, doc.Model) else None
    if given is not None:
        yield from _plain(given, f"model.{name}")
    elif (left or model) and parameter.default is not None:
        yield from _plain(parameter.default, f"{declaration.name}.{name}")


def _traced(subject: Subject, owner: doc.Block | doc.Model, given: e.Expr, path: str) -> Iterator[Amount]:
    own = {p.name for p in owner.parameters}
    if isinstance(given, e.Name) and given.text in own:
        yield from given_to(subject, owner, given.text)
        return
    yield from _plain(given, path)


def _plain(value: e.Expr, path: str) -> Iterator[Amount]:
    literal = _literal(value)
    if literal is not None:
        yield Amount(path, value, value, *literal)


def _of_model(subject: Subject, name: str, model: doc.Model) -> e.Expr | None:
    call = subject.train.fields.get("model")
    if not isinstance(call, e.Call):
        return None
    named = call.get(name)
    place = [p.name for p in model.parameters].index(name)
    return named or (call.positional[place] if place < len(call.positional) else None)


def _literal(node: e.Expr) -> tuple[int, str] | None:
    match node:
        case e.Number(value=int(number)):
            return number, ""
        case e.Quantity(amount=e.Number(value=int(number)), unit=unit) if unit != "%":
            return number, unit
        case _:
            return None


def _exchanged(value: e.Expr, old: e.Expr, new: e.Expr) -> e.Expr:
    """`value` with one of its nodes exchanged."""
    if value is old:
        return new
    if isinstance(value, e.Phrase):
        return e.Phrase(tuple(_exchanged(w, old, new) for w in value.words))
    return value
