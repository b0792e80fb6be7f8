"""Values that depend on a word: `preset(equations = l2, stable = dot)`, where `preset` is a parameter."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from nldsl.document import expr as e
from nldsl.resolve.scope import Scope, Word


def chosen_fields(given: dict[str, e.Expr], scope: Scope) -> dict[str, e.Expr]:
    """Fields with every choice made; a field that has nothing for the word is left out.

    A choice is a call of a parameter whose value is a word, with one named argument for each word it may be.
    Raises `Unresolved` after NL0203 where no choice of the memory knows the word.
    """
    words = {name: value for name, value in scope.values.items() if isinstance(value, Word)}
    calls = [node for value in given.values() for node in value.walk() if _is_choice(node, words)]
    if not calls:
        return given
    known: dict[str, list[str]] = {}
    for call in calls:
        known.setdefault(call.function.text, []).extend(a.name or "" for a in call.arguments)  # type: ignore[attr-defined]
    for name, choices in known.items():
        scope.word(e.Name((name,), span=words[name].span), f"`{name}`", tuple(dict.fromkeys(choices)))
    made = {name: _chosen(value, words) for name, value in given.items()}
    return {name: value for name, value in made.items() if value is not None}


def _is_choice(node: e.Expr, words: dict[str, Word]) -> bool:
    return (
        isinstance(node, e.Call)
        and node.function.text in words
        and bool(node.arguments)
        and all(a.name is not None for a in node.arguments)
    )


def _chosen(node: e.Expr, words: dict[str, Word]) -> e.Expr | None:
    """`node` with every choice made; None where it is one that has nothing for the word."""
    if isinstance(node, e.Call) and _is_choice(node, words):
        found = node.get(words[node.function.text].text)
        return None if found is None else _chosen(found, words)
    if isinstance(node, e.Pipe):
        return _chosen_pipe(node, words)
    changes: dict[str, Any] = {}
    for one in fields(node):
        value = getattr(node, one.name)
        if isinstance(value, e.Expr):
            new = _chosen(value, words)
            if new is None:
                return None
            changes[one.name] = new
        elif isinstance(value, tuple):
            items = [_chosen(v, words) if isinstance(v, e.Expr) else v for v in value]
            changes[one.name] = tuple(v for v in items if v is not None)
    return replace(node, **changes)


def _chosen_pipe(node: e.Pipe, words: dict[str, Word]) -> e.Expr | None:
    """A pipeline whose stages may be chosen: several stages take the place of one, or none does."""
    source = _chosen(node.source, words)
    if source is None:
        return None
    stages: list[e.Expr] = []
    for stage in node.stages:
        made = _chosen(stage, words)
        stages += (
            (made.source, *made.stages) if isinstance(made, e.Pipe) else [made] if made is not None else []
        )
    return e.Pipe(source, tuple(stages), span=node.span) if stages else source
