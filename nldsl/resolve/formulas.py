"""Expressions of an `optimizer` to formulas: names found, kinds and axes checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.algorithm import (
    ELEMENTWISE,
    FUNCTIONS,
    SIGNALS,
    WEIGHT,
    Axes,
    Figure,
    Formula,
    Function,
    Kind,
    Local,
    Negative,
    Operation,
    Option,
    Recall,
    Signal,
)
from nldsl.resolve.scope import Amount, Scope, Word

Held = tuple[bool, Axes]
"""Of a memory: whether it is asked with a query alone (an `mlp`), and the axes of what it holds."""


class Formulas:
    """Reads the expressions of one declaration, in the scope of its parameters.

    `local` gives the formula of a named value, `held` what a memory holds; both raise `Unresolved`, and a
    `KeyError` for names that they do not know.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        local: Callable[[str, Span | None], Formula],
        held: Callable[[str, Span | None], Held],
        names: Callable[[], list[str]],
    ) -> None:
        self.scope, self.findings = scope, scope.findings
        self.local, self.held, self.names = local, held, names

    def read(self, node: e.Expr) -> Formula:
        """The formula that an expression is; raises `Unresolved` after recording what is wrong."""
        match node:
            case e.Number(value=value):
                return Figure("number", value, span=node.span)
            case e.Quantity(unit="%"):
                return Figure("number", self.scope.number(node).value, span=node.span)
            case e.Name():
                return self._name(node)
            case e.Unary(operand=operand):
                inner = self.read(operand)
                return Negative(inner.kind, inner, axes=inner.axes, span=node.span)
            case e.Binary():
                return self._binary(node)
            case e.Call():
                return self._call(node)
            case e.Quantity():
                self.scope.number(node)
            case e.Pipe():
                stage = print_expr(node.stages[-1])
                raise self._no_formula(node, f"formulas have no stages: write `{stage}(...)`")
            case _:
                pass
        raise self._no_formula(node, "write numbers, names and functions with `+ - * / ^` between them")

    def number(self, node: e.Expr, what: str) -> Formula:
        """A formula that is one number for a whole weight."""
        made = self.read(node)
        if made.kind == "tensor":
            raise self.findings.stop(
                "NL0542",
                f"{what} is {described(made)}, and one number is wanted",
                node.span,
                "not a number",
                help="take its `mean` or `norm`, or write a number",
            )
        return made

    def _no_formula(self, node: e.Expr, hint: str) -> Exception:
        return self.findings.stop(
            "NL0541", f"`{print_expr(node)}` is not a formula", node.span, "not understood", help=hint
        )

    # ------------------------------------------------------------------ names

    def _name(self, node: e.Name) -> Formula:
        name = node.text
        if name in self.scope.values:
            return self._option(node)
        if name in SIGNALS:
            _, kind, axes = SIGNALS[name]
            return Signal(kind, name, axes=axes, span=node.span)
        try:
            found = self.local(name, node.span)
            return Local(found.kind, name, axes=found.axes, span=node.span)
        except KeyError:
            pass
        try:
            asked, axes = self.held(name, node.span)
        except KeyError:
            return self._constant(node)
        if asked:
            raise self.findings.stop(
                "NL0542",
                f"`{name}` is an mlp, and a formula takes what it answers",
                node.span,
                "no tensor",
                help=f"write for instance `{name}(grad)`",
            )
        return Recall("tensor", name, axes=axes, span=node.span)

    def _option(self, node: e.Name) -> Formula:
        value = self.scope.values[node.text]
        if isinstance(value, Word):
            raise self.findings.stop(
                "NL0204",
                f"`{node.text}` is the word `{value.text}`, and a number is wanted",
                node.span,
                "a number is wanted here",
                help=f"choose by it: `{node.text}({value.text} = ..., other = ...)`",
            )
        if isinstance(value, Amount | e.Expr):
            self.scope.number(node)  # records which unit or pipeline stands there
        return Option("number", node.text, span=node.span)

    def _constant(self, node: e.Name) -> Formula:
        found = self.scope.module.lookup(node.text)
        if found is not None and getattr(found[0], "kind", "") == "let":
            return Figure("number", self.scope.number(node).value, span=node.span)
        raise self.unknown(node.text, node.span)

    def unknown(self, name: str, span: Span | None) -> Exception:
        """Record that nothing is called `name`, with what is near."""
        known = [*self.names(), *self.scope.values, *SIGNALS]
        near = nearest(name, [*known, *FUNCTIONS])
        hint = f"maybe `{near[0]}`" if near else "known here: " + ", ".join(f"`{k}`" for k in known)
        return self.findings.stop(
            "NL0540", f"nothing in the rule is called `{name}`", span, "unknown name", help=hint
        )

    # ------------------------------------------------------------------ operators

    def _binary(self, node: e.Binary) -> Formula:
        left, right = self.read(node.left), self.read(node.right)
        if node.op == "^" and right.kind == "tensor":
            raise self.findings.stop(
                "NL0542",
                f"an exponent is one number, and `{print_expr(node.right)}` is {described(right)}",
                node.right.span,
                "the exponent",
                help="write `exp(b * log(a))` for a power that differs from number to number",
            )
        kind, axes = self._joined(node, left, right)
        return Operation(kind, node.op, left, right, axes=axes, span=node.span)

    def _joined(self, node: e.Expr, left: Formula, right: Formula) -> tuple[Kind, Axes]:
        """What comes of two formulas number by number; one number serves a whole tensor."""
        if left.kind == right.kind == "tensor" and left.axes != right.axes:
            raise self.findings.stop(
                "NL0542",
                f"`{print_expr(node)}` joins {described(left)} with {described(right)}",
                node.span,
                "different shapes",
                others=((left.span, spelled(left.axes)), (right.span, spelled(right.axes))),
                help="`times(a, b)` is the product of matrices, `transposed(a)` exchanges rows and columns",
            )
        for one in (left, right):
            if one.kind == "tensor":
                return "tensor", one.axes
        return ("scalar" if "scalar" in (left.kind, right.kind) else "number"), ()

    # ------------------------------------------------------------------ calls

    def _call(self, node: e.Call) -> Formula:
        name = node.function.text
        if name in FUNCTIONS and name not in (*self.names(), *self.scope.values):
            return self._function(node, name)
        try:
            _, axes = self.held(name, node.function.span)
        except KeyError:
            if name in (*self.scope.values, *SIGNALS, *self.names()):
                raise self._no_formula(node, f"`{name}` is not a function; write `{name} * (...)`") from None
            raise self.unknown(name, node.function.span) from None
        (query,) = self._arguments(node, f"{name}(grad)", 1)
        if query.kind != "tensor" or query.axes[1:] != axes[1:]:
            raise self.findings.stop(
                "NL0542",
                f"`{name}` is asked with rows of `{axes[1]}`, and this is {described(query)}",
                node.arguments[0].span,
                "the question",
                help="ask it with what its `key` looks like",
            )
        return Recall("tensor", name, query, axes=(query.axes[0], axes[0]), span=node.span)

    def _function(self, node: e.Call, name: str) -> Formula:
        form, _ = FUNCTIONS[name]
        if name == "orthogonal":
            return self._orthogonal(node, form)
        made = self._arguments(node, form, 2 if name in ("min", "max", "times", "solve") else 1)
        first, last = made[0], made[-1]
        kind, axes = first.kind, first.axes
        match name:
            case "min" | "max":
                kind, axes = self._joined(node, first, last)
            case _ if name in ELEMENTWISE:
                pass
            case "identity":
                if not isinstance(first, Signal) or first.name not in WEIGHT:
                    raise self._wrong(node, form, "it takes `rows` or `columns`")
                kind, axes = "tensor", (first.name, first.name)
            case _ if any(one.kind != "tensor" for one in made):
                raise self._wrong(node, form, "it takes matrices")
            case "mean" | "norm":
                kind, axes = "scalar", ()
            case "transposed":
                axes = axes[::-1]
            case "gram":
                if first.axes[0] != "tokens":
                    raise self._wrong(
                        node, form, f"it takes a token in each row, and this is {described(first)}"
                    )
                axes = (first.axes[1], first.axes[1])
            case "jacobian":
                if not isinstance(first, Recall) or first.query is None:
                    raise self._wrong(node, form, "it takes the answer of a memory")
                axes = (first.axes[1], first.query.axes[1])
            case _:
                square = last.axes[0] == last.axes[1]
                if first.axes[1] != last.axes[0] or (name == "solve" and not square):
                    shapes = f"{spelled(first.axes)} and {spelled(last.axes)} do not fit"
                    raise self._wrong(node, form, shapes)
                axes = (first.axes[0], last.axes[1])
        return Function(kind, name, made, axes=axes, span=node.span)

    def _orthogonal(self, node: e.Call, form: str) -> Formula:
        given = node.arguments
        named = [one.name for one in given if one.name is not None]
        if not 1 <= len(given) <= 2 or named not in ([], ["rounds"]) or given[0].name is not None:
            raise self._wrong(node, form, f"it is given `{print_expr(node)}`")
        first = self.read(given[0].value)
        if first.kind != "tensor" or "tokens" in first.axes:
            raise self._wrong(node, form, "it takes a matrix")
        rounds = (
            self.number(given[1].value, "`rounds`") if len(given) > 1 else Figure("number", 5, span=node.span)
        )
        return Function("tensor", "orthogonal", (first, rounds), axes=first.axes, span=node.span)

    def _arguments(self, node: e.Call, form: str, count: int) -> tuple[Formula, ...]:
        if len(node.arguments) != count or any(one.name is not None for one in node.arguments):
            raise self._wrong(node, form, f"it is given {len(node.arguments)} arguments")
        return tuple(self.read(one.value) for one in node.arguments)

    def _wrong(self, node: e.Call, form: str, why: str) -> Exception:
        return self.findings.stop(
            "NL0542",
            f"`{node.function.text}` cannot be made of this: {why}",
            node.span,
            "its arguments",
            help=f"it is written `{form}`",
        )


def spelled(axes: Axes) -> str:
    """`rows x columns`."""
    return " x ".join(axes)


def described(formula: Formula) -> str:
    """What kind of thing a formula is, for people."""
    match formula.kind:
        case "tensor":
            return (
                "a tensor of the weights' shape"
                if formula.axes == WEIGHT
                else f"a matrix of {spelled(formula.axes)}"
            )
        case "scalar":
            return "one number for each weight matrix"
        case _:
            return "one number"


def written(formula: Formula) -> e.Expr:
    """The expression that a formula would be written as."""
    match formula:
        case Figure(value=value):
            return e.Number(value)
        case Option(name=name) | Signal(name=name) | Local(name=name) | Recall(memory=name, query=None):
            return e.Name((name,))
        case Recall(memory=name, query=query) if query is not None:
            return e.Call(e.Name((name,)), (e.Argument(written(query)),))
        case Operation(op=op, left=left, right=right):
            return e.Binary(op, written(left), written(right))
        case Negative(operand=operand):
            return e.Unary("-", written(operand))
        case Function(name=name, arguments=arguments):
            return e.Call(e.Name((name,)), tuple(e.Argument(written(one)) for one in arguments))
        case _:
            raise AssertionError(formula)


def text(formula: Formula) -> str:
    """A formula as it is spelled in a spec."""
    return print_expr(written(formula))


def replaced(formula: Formula, change: Callable[[Formula], Formula | None]) -> Formula:
    """`formula` with every part for which `change` gives another one."""
    new = change(formula)
    if new is not None:
        return new
    match formula:
        case Operation(left=left, right=right):
            return replace(formula, left=replaced(left, change), right=replaced(right, change))
        case Negative(operand=operand):
            return replace(formula, operand=replaced(operand, change))
        case Function(arguments=arguments):
            return replace(formula, arguments=tuple(replaced(one, change) for one in arguments))
        case Recall(query=query) if query is not None:
            return replace(formula, query=replaced(query, change))
        case _:
            return formula
