"""Binding the arguments of a call to parameters: of declarations, and of primitives."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.resolve.expanded import Num
from nldsl.resolve.modules import Module
from nldsl.resolve.primitives import Takes
from nldsl.resolve.scope import Amount, Scope, Value, Word


@dataclass(slots=True)
class Bound:
    """A call of a declaration: the scope inside it, and its numbers spelled in the caller's scope."""

    scope: Scope
    arguments: dict[str, Num]


def function_name(node: e.Expr) -> str | None:
    """`f` of `f` or `f(...)`."""
    if isinstance(node, e.Call):
        return node.function.text
    return node.text if isinstance(node, e.Name) else None


def arguments_of(node: e.Expr) -> tuple[e.Argument, ...]:
    """The arguments of a call; none of a bare name."""
    return node.arguments if isinstance(node, e.Call) else ()


def bind(node: e.Expr, name: str, parameters: list[doc.Parameter], module: Module, caller: Scope) -> Bound:
    """Match arguments with parameters by position and name; defaults are evaluated late, in order."""
    findings = caller.findings
    known = [p.name for p in parameters]
    given: dict[str, e.Argument] = {}
    for index, argument in enumerate(arguments_of(node)):
        key = argument.name
        if key is None:
            if index >= len(known):
                raise findings.stop(
                    "NL0202",
                    f"`{name}` takes {len(known)} arguments",
                    argument.span,
                    "one too many",
                    help=f"its parameters are {', '.join(f'`{k}`' for k in known) or 'none'}",
                )
            key = known[index]
        if key not in known:
            near = nearest(key, known)
            hint = (
                f"maybe `{near[0]}`"
                if near
                else f"its parameters are {', '.join(f'`{k}`' for k in known) or 'none'}"
            )
            raise findings.stop(
                "NL0202", f"`{name}` has no parameter `{key}`", argument.span, "unknown parameter", help=hint
            )
        if key in given:
            raise findings.stop(
                "NL0202",
                f"`{key}` is given twice",
                argument.span,
                "again here",
                others=((given[key].span, "first here"),),
            )
        given[key] = argument
    inside = Scope(module, findings, {}, name)
    outside = Scope(module, findings, {}, name)  # the same values, numbers spelled as the caller would
    for parameter in parameters:
        if parameter.name in given:
            value = caller.value(given[parameter.name].value)
        elif parameter.default is not None:
            value = outside.value(parameter.default)
        else:
            raise findings.stop(
                "NL0201",
                f"`{name}` needs `{parameter.name}`",
                node.span,
                "not given here",
                others=((parameter.span, "the parameter"),),
                help=f"write `{name}({parameter.name} = ...)`",
            )
        outside.values[parameter.name] = value
        inside.values[parameter.name] = _own(parameter.name, value)
    arguments = {k: v for k, v in outside.values.items() if isinstance(v, Num)}
    return Bound(inside, arguments)


def _own(name: str, value: Value) -> Value:
    if isinstance(value, Num):
        return Num(value.value, e.Name((name,)), value.span)
    if isinstance(value, Amount):
        return Amount(Num(value.number.value, e.Name((name,)), value.span), value.unit, value.span)
    return value


def primitive_arguments(
    node: e.Expr, name: str, takes: tuple[Takes, ...], scope: Scope
) -> dict[str, Num | str | bool]:
    """The arguments of a primitive or map, checked against what it takes; defaults filled in."""
    findings = scope.findings
    values: dict[str, Num | str | bool] = {}
    numbers = [t for t in takes if t.kind == "number"]
    for argument in arguments_of(node):
        value = scope.value(argument.value)
        if argument.name is not None:
            take = next((t for t in takes if t.name == argument.name), None)
        elif isinstance(value, Word):
            take = next(
                (t for t in takes if (t.kind == "flag" and t.name == value.text) or value.text in t.words),
                None,
            )
        else:
            take = next((t for t in numbers if t.name not in values), None)
        if take is None and isinstance(value, Word) and _is_parameter(argument, scope):
            raise findings.stop(
                "NL0204",
                f"`{value.text}` is not a number",
                value.span or argument.span,
                "a number is wanted here",
                others=((argument.span, f"`{name}` takes it here"),),
            )
        if take is None:
            raise _unknown(argument, name, takes, scope)
        if take.name in values:
            raise findings.stop("NL0202", f"`{take.name}` is given twice", argument.span, "again here")
        values[take.name] = _typed(take, value, argument, scope)
    for take in takes:
        if take.name in values:
            continue
        if take.required:
            raise findings.stop(
                "NL0201",
                f"`{name}` needs `{take.name}`",
                node.span,
                "not given here",
                help=f"write `{name}(...)` with it",
            )
        if take.default is not None:
            values[take.name] = _default(take.default, number=take.kind == "number")
    return values


def _is_parameter(argument: e.Argument, scope: Scope) -> bool:
    return isinstance(argument.value, e.Name) and argument.value.text in scope.values


def _default(value: int | float | str | bool, *, number: bool) -> Num | str | bool:
    if number and not isinstance(value, str):
        return Num(value, e.Number(value))
    return value if isinstance(value, str | bool) else str(value)


def _unknown(argument: e.Argument, name: str, takes: tuple[Takes, ...], scope: Scope) -> Exception:
    spelled = argument.name or getattr(argument.value, "text", "")
    names = [t.name for t in takes] + [w for t in takes for w in t.words]
    near = nearest(spelled, names) if spelled else []
    takes_text = ", ".join(f"`{t.name}`" for t in takes) or "no arguments"
    hint = f"maybe `{near[0]}`" if near else f"`{name}` takes {takes_text}"
    return scope.findings.stop(
        "NL0202", f"`{name}` does not take this argument", argument.span, "unknown argument", help=hint
    )


def _typed(take: Takes, value: Value, argument: e.Argument, scope: Scope) -> Num | str | bool:
    if take.kind == "number":
        if isinstance(value, Amount) and value.unit in take.units:
            return value.number
        if isinstance(value, Amount):
            raise scope.findings.stop(
                "NL0204",
                f"`{take.name}` is given in {value.unit}s, and a bare number is wanted",
                argument.span,
                "a number is wanted here",
                others=((value.span, "the amount"),) if value.span not in (None, argument.span) else (),
                help="leave the unit out",
            )
        return value if isinstance(value, Num) else scope.number(argument.value)
    if take.kind == "flag":
        if isinstance(value, Word) and value.text in ("true", "false", take.name):
            return value.text != "false"
        raise scope.findings.stop("NL0203", f"`{take.name}` is either `true` or `false`", argument.span)
    if isinstance(value, Word) and value.text in take.words:
        return value.text
    raise scope.findings.stop(
        "NL0203",
        f"`{take.name}` is one of {', '.join(f'`{w}`' for w in take.words)}",
        argument.span,
        "not a choice",
    )
