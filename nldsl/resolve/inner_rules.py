"""Declared rules inside the sequence: an `optimizer` as the rule of a memory.

There the rule's rate is the memory's gate, its gradient that of the memory's own objective, and its weights
what retention leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.algorithm import Algorithm, Figure, Formula, Local, Option
from nldsl.resolve.calls import arguments_of, function_name
from nldsl.resolve.core import Map
from nldsl.resolve.formulas import replaced
from nldsl.resolve.modules import Module
from nldsl.resolve.optimizers import algorithm, known_rules
from nldsl.resolve.rule_order import changed
from nldsl.resolve.scope import Scope

Found = tuple[doc.Optimizer, Module]


def declared_rule(value: e.Expr, words: tuple[str, ...], scope: Scope) -> Found | None:
    """The `optimizer` that a field `rule` names; None where it is one of `words`.  Raises `Unresolved`."""
    name = function_name(value)
    if name is None or name in words:
        return None
    found = scope.module.rule(name)
    if found is not None:
        return found
    near = nearest(name, [*words, *known_rules(scope.module)])
    raise scope.findings.stop(
        "NL0203",
        f"`rule` cannot be `{print_expr(value)}`",
        value.span,
        "not a choice",
        help=f"maybe `{near[0]}`"
        if near
        else f"use one of {', '.join(f'`{w}`' for w in words)}, or declare an `optimizer` of that name",
    )


def bound_rule(call: e.Expr, found: Found, scope: Scope, where: str) -> Algorithm:
    """The rule of a call without its rate, which `where` has as a field.  Raises `Unresolved`."""
    declaration, module = found
    names = [p.name for p in declaration.parameters if p.name != "rate"]
    given: list[e.Argument] = []
    for index, argument in enumerate(arguments_of(call)):
        name = argument.name or (names[index] if index < len(names) else None)
        if name == "rate":
            raise scope.findings.stop(
                "NL0555",
                f"`{declaration.name}` is given a rate, and {where} has its own",
                argument.span,
                "the rule's rate",
                help="write it as the field `rate`, which may differ from token to token",
            )
        if isinstance(argument.value, e.Pipe):
            scope.number(argument.value)  # which says that an option is one number
        given.append(replace(argument, name=name))
    rate = e.Argument(e.Number(1.0), "rate", span=call.span)
    whole = e.Call(e.Name((declaration.name,), span=call.span), (*given, rate), span=call.span)
    return algorithm(whole, declaration, module, scope, 1.0)


def for_weights(rule: Algorithm, one: Map) -> Algorithm | None:
    """What a rule does to the weights of a map: a rule for matrices leaves vectors to its `otherwise`.

    None where it says nothing of them, or a map has both.
    """
    if not rule.matrices:
        return replace(rule, otherwise=None, otherwise_options={})
    vectors = (
        {len(weight.shape) == 1 for weight in one.fast} if one.kind == "block" else {one.kind == "vector"}
    )
    if vectors == {False}:
        return replace(rule, otherwise=None, otherwise_options={})
    if vectors == {False, True} or rule.otherwise is None:
        return None
    return for_weights(_otherwise(rule, rule.otherwise), one)


def _otherwise(rule: Algorithm, inner: Algorithm) -> Algorithm:
    """`otherwise` as a rule of its own, with what the rule gives it in place of its options."""
    local = dict(rule.locals)

    def outer(node: Formula) -> Formula | None:
        match node:
            case Option(name=name) if name != "rate":
                return Figure("number", rule.options[name], span=node.span)
            case Local(name=name):
                return replaced(local[name], outer)
            case _:
                return None

    given = {name: replaced(formula, outer) for name, formula in rule.otherwise_options.items()}

    def change(node: Formula) -> Formula | None:
        return given.get(node.name) if isinstance(node, Option) else None

    return replace(
        inner,
        options={name: value for name, value in inner.options.items() if name not in given},
        memories=tuple(changed(memory, change) for memory in inner.memories),
        locals=tuple((name, replaced(formula, change)) for name, formula in inner.locals),
        weight=replaced(inner.weight, change),
    )


def meaningless(rule: Algorithm, one: Map, has: Callable[[str], bool]) -> str | None:
    """Why what a rule reads of layers means nothing to a memory; None where it means something.

    `has` says whether the memory has a field.
    """
    read = rule.signals() & {"input", "error", "tokens"}
    if not read:
        return None
    if "error" in read:
        return "a memory has one gradient for each write, and no `error` of its layers beside it"
    if one.kind == "block":
        return f"the map `{one.call}` does not tell what its layers are given"
    for name in ("window", "erase"):
        if has(name):
            return f"with `{name}` a gradient has more than one input"
    return None


__all__ = ["bound_rule", "declared_rule", "for_weights", "meaningless"]
