"""Proposals as values, and the amendments that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from nldsl.diagnostics.model import Source
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.amend import amendment


@dataclass(frozen=True, slots=True)
class Proposal:
    """A variant that nobody wrote, with the question that it asks.

    Attributes:
        question: in plain English; it names the part.
        words: what the variant changes, as for variants that are written.
        amendments: what it changes in the base; whoever writes a spec can write them.
        family: what kind of change it is.
        imports: parts of the standard library that the amendments name and the spec does not import.
    """

    question: str
    words: str
    amendments: tuple[doc.Amendment, ...]
    family: str = ""
    imports: tuple[str, ...] = ()


def asks(question: str, *amendments: doc.Amendment, imports: tuple[str, ...] = ()) -> Proposal:
    """The proposal of a question and the changes that answer it."""
    return Proposal(question, in_words(amendments), amendments, imports=imports)


def removed(path: str) -> doc.Amendment:
    """`remove PATH`."""
    return amendment("remove", path, None, None)


def given(path: str, value: str | e.Expr) -> doc.Amendment:
    """`set PATH = VALUE`; a value may be the text of an expression."""
    return amendment("set", path, expression(value) if isinstance(value, str) else value, None)


def replaced(path: str, value: str | e.Expr) -> doc.Amendment:
    """`replace PATH by VALUE`; a value may be the text of an expression."""
    return amendment("replace", path, expression(value) if isinstance(value, str) else value, None)


@cache
def expression(text: str) -> e.Expr:
    """The expression that a text spells; `text` is this package's own, so it can be read."""
    from nldsl.syntax.parse import parse_expression

    value, findings = parse_expression(Source("proposal", text))
    assert value is not None and not findings, (text, findings)
    return value


def in_words(amendments: tuple[doc.Amendment, ...]) -> str:
    """What amendments change, in the words of an `ablate` block.

    >>> in_words((removed("A.key.conv"), removed("A.value.conv")))
    'without A.key.conv, A.value.conv'
    >>> in_words((given("A.rate", "0.1"), given("A.rule", "gd")))
    'A.rate = 0.1, A.rule = gd'
    """
    from nldsl.resolve.amend import in_words as one

    said = [one(item).removeprefix("set ") for item in amendments if item.action != "remove"]
    gone = ", ".join(item.path for item in amendments if item.action == "remove")
    return ", ".join([*said, f"without {gone}"] if gone else said)
