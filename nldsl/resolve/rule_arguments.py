"""What a call gives to an `optimizer`: its rate, numbers, periods, and defaults that follow the rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.findings import Findings
from nldsl.resolve.scope import Amount, Num, Value


def bound(parameter: doc.Parameter, value: Value, findings: Findings) -> Value:
    """A bound value as formulas read it: numbers like the default's, periods with their unit.

    Raises `Unresolved` after recording a pipeline, or a period in another unit.
    """
    default, name = parameter.default, parameter.name
    if isinstance(default, e.Quantity) and default.unit == "step":
        return _period(name, value, findings)
    if not isinstance(default, e.Number):
        return value
    if isinstance(value, e.Pipe):
        raise findings.stop(
            "NL0204",
            f"`{name}` is a pipeline, and a number is wanted",
            value.span,
            "not a number",
            help="give a number; of a rule's options only `rate` follows a schedule",
        )
    if isinstance(default.value, float) and isinstance(value, Num):
        return replace(value, value=float(value.value))
    return value


def _period(name: str, value: Value, findings: Findings) -> Value:
    if isinstance(value, Amount) and value.unit != "step":
        raise findings.stop(
            "NL0204",
            f"`{name}` is an amount of {value.unit}s, and a rule's clock counts its own updates",
            value.span,
            "another unit",
            help=f"write for instance `{name} = 16 steps`",
        )
    if not isinstance(value, Num):
        return value
    findings.add(
        "NL0549",
        f"`{name}` has no unit and is read as steps",
        value.span,
        "a bare number",
        severity="warning",
        help=f"write `{value.value} steps`: a rule's clock counts its own updates",
    )
    return Amount(value, "step", value.span)


def with_rate(call: e.Expr, declaration: doc.Optimizer, rate: float) -> e.Expr:
    """The call with its rate, which may be a schedule, made one number."""
    if not isinstance(call, e.Call):
        return e.Call(e.Name((print_expr(call),)), (e.Argument(e.Number(rate), "rate"),), span=call.span)
    given = [value for key, value in matched(call, declaration) if key == "rate"]
    changed = tuple(
        replace(a, value=e.Number(rate, span=a.value.span)) if any(a.value is g for g in given) else a
        for a in call.arguments
    )
    return replace(call, arguments=changed)


def matched(call: e.Expr, declaration: doc.Optimizer) -> Iterable[tuple[str, e.Expr]]:
    """Arguments with the parameters that they are for; those that fit none are left to `bind`."""
    names = [p.name for p in declaration.parameters]
    for index, argument in enumerate(call.arguments if isinstance(call, e.Call) else ()):
        key = argument.name or (names[index] if index < len(names) else None)
        if key in names:
            yield key, argument.value


def late(declaration: doc.Optimizer, call: e.Expr) -> dict[str, e.Expr]:
    """Defaults that follow the rate and are not overridden: values of every update, not numbers of a call."""
    given = {key for key, _ in matched(call, declaration)}
    found: dict[str, e.Expr] = {}
    for parameter in declaration.parameters:
        default = parameter.default
        if default is None or parameter.name in given:
            continue
        names = {n.text for n in default.walk() if isinstance(n, e.Name)}
        if names & {"rate", *found}:
            found[parameter.name] = default
    return found
