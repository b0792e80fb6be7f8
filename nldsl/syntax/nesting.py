"""Expressions that nest too deep are a finding, so that no later stage has to fear for its stack."""

from __future__ import annotations

from nldsl.diagnostics.model import Diagnostic, Label, Span
from nldsl.document import expr as e

MAX_NESTING = 100
"""How deep values may stand inside one another; each stage of a pipeline and each operator counts."""


def shallow(body: e.Body) -> tuple[e.Body, list[Diagnostic]]:
    """The body without the statements that nest deeper than `MAX_NESTING`, and a finding (NL0111) for each.

    Parentheses alone do not count: they are gone from the tree.
    """
    deep = {id(s): place for s in body.statements if (place := too_deep(s)) is not None}
    if not deep:
        return body, []
    kept = tuple(s for s in body.statements if id(s) not in deep)
    rest = e.Body(kept, span=body.span, closing_comments=body.closing_comments, inline=body.inline)
    return rest, [nested_too_deep(place) for place in deep.values()]


def too_deep(statement: e.Expr) -> Span | None:
    """Where `statement` first nests deeper than `MAX_NESTING`; None where it does not."""
    waiting: list[tuple[e.Expr, int]] = [(statement, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_NESTING:
            return node.span or statement.span
        if isinstance(node, e.Pipe):
            waiting += [(part, depth + place) for place, part in enumerate((node.source, *node.stages), 1)]
        else:
            waiting += [(child, depth + 1) for child in node.children()]
    return None


def nested_too_deep(place: Span) -> Diagnostic:
    """The finding for what begins at `place`."""
    return Diagnostic(
        "NL0111",
        f"values nest more than {MAX_NESTING} deep",
        (Label(place, "too deep"),),
        help="give a part of it a name, with `let` or on a line of its own; "
        "many equal stages are `repeat(n, ...)`",
    )
