"""Settings of a single adaptive projection: where it differs from the memory around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast

from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.core import Core
from nldsl.resolve.pipelines import Adaptive
from nldsl.resolve.scope import Scope

Setting = str | int
OWN_UNIT = "own |> unit"


def settings(node: e.Phrase, scope: Scope) -> dict[str, Setting]:
    """What stands in the braces of `adaptive mlp(...) { ... }`.

    `key` is `shared`, the memory's own, `own`, what the projection answers to the token, or `own |> unit`;
    `target` is `self` or `value`; `rule` and `update` are as in a memory (Nested Learning, Eq. 79-85).
    """
    found: dict[str, Setting] = {}
    for statement in node.body.statements if node.body else ():
        name = statement.target.text if isinstance(statement.target, e.Name) else ""
        if name not in _READERS:
            raise scope.findings.stop(
                "NL0202",
                f"`adaptive` has no setting `{name}`",
                statement.span,
                "unknown setting",
                help=f"it has {', '.join(f'`{one}`' for one in _READERS)}",
            )
        found[name] = _READERS[name](statement.value, scope)
    return found


def own_core(node: Adaptive, core: Core) -> Core:
    """The algebra of a projection in a memory with the algebra `core`, but for its clock."""
    given = node.settings
    target = cast('Literal["value", "self"]', given.get("target", "self"))
    rule, optimizer = str(given.get("rule", core.rule)), None if "rule" in given else core.optimizer
    return replace(core, map=node.map, rule=rule, optimizer=optimizer, target=target)


def _update(value: e.Expr, scope: Scope) -> Setting:
    clock = scope.clock(value)
    if clock.unit != "token":
        raise scope.findings.stop(
            "NL0303",
            f"an adaptive projection is counted in {clock.unit}s",
            value.span,
            "this unit does not fit",
            help="count it in tokens",
        )
    return clock.period


def _key(value: e.Expr, scope: Scope) -> Setting:
    if isinstance(value, e.Pipe) and print_expr(value) == OWN_UNIT:
        return OWN_UNIT
    return scope.word(value, "the key of a projection", ("own", "shared"))


def _target(value: e.Expr, scope: Scope) -> Setting:
    return scope.word(value, "the target of a projection", ("value", "self"))


def _rule(value: e.Expr, scope: Scope) -> Setting:
    if isinstance(value, e.Call) and value.function.text == "dgd" and len(value.arguments) == 1:
        reading = scope.word(value.arguments[0].value, "the reading of `dgd`", ("explicit", "first_layer"))
        return f"dgd_{reading}"
    return scope.word(value, "the rule of a projection", ("gd", "dgd"))


_READERS: dict[str, Callable[[e.Expr, Scope], Setting]] = {
    "key": _key,
    "target": _target,
    "rule": _rule,
    "update": _update,
}
