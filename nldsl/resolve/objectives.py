"""Objectives written as expressions: `objective = log(cosh(M(key) - value))`.

`M(P)` is what the memory answers to a pipeline as wide as a key.  The expression is computed number by number
over the channels of the answer, and summed over them.  What it reads besides, local pipelines and gates, are
its parameters: one number for each token and head, or as many as a value has in a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import function_name
from nldsl.resolve.context import Context
from nldsl.resolve.expanded import Apply, Expression, Flow, Num, Parameter, Shape
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.flows import Flows
from nldsl.resolve.layouts import shared, split
from nldsl.resolve.primitives import PRIMITIVES
from nldsl.resolve.scope import Scope

CODE = "NL0531"
MEMORY = "M"
MOST_POWER = 4  # of what may be `l2` or `dot` in disguise


TAKEN = ("weight", "state", "start")
"""What a core calls inputs of its own."""


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "sigmoid": _sigmoid,
    "tanh": math.tanh,
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "relu": lambda x: max(x, 0.0),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "sqrt": math.sqrt,
    "log": math.log,
    "abs": abs,
    "cosh": math.cosh,
}
"""What may be applied to every number of an objective, and its value for numbers that are known."""


def is_expression(node: e.Expr, words: tuple[str, ...]) -> bool:
    """Whether an objective is an expression, and not one of `words`."""
    if isinstance(node, e.Binary | e.Unary | e.Pipe):
        return True
    return isinstance(node, e.Call) and node.function.text not in words and (asks(node) or _applied(node))


def asks(node: e.Expr) -> bool:
    """Whether an expression asks the memory anything."""
    return any(_answer(n) for n in node.walk())


def _answer(node: e.Expr) -> bool:
    return isinstance(node, e.Call) and node.function.text == MEMORY


def _applied(node: e.Expr) -> bool:
    return isinstance(node, e.Call) and node.function.text in FUNCTIONS


# --------------------------------------------------------------------------- l2 and dot

Polynomial = dict[tuple[int, int], Fraction]
"""Coefficients by the powers of `M(key)` and of `value`."""

KNOWN: dict[str, Polynomial] = {
    "l2": {(2, 0): Fraction(1, 2), (1, 1): Fraction(-1), (0, 2): Fraction(1, 2)},
    "dot": {(1, 1): Fraction(-1)},
}


def recognised(node: e.Expr, scope: Scope, local: frozenset[str]) -> str | None:
    """`l2` or `dot`, where an expression is exactly that for every answer and value; `None` where it is not.

    `local`: names of pipelines, which are no numbers even where a parameter has the same name.
    """
    made = _polynomial(node, scope, local)
    return next((word for word, known in KNOWN.items() if made == known), None)


def _polynomial(node: e.Expr, scope: Scope, local: frozenset[str]) -> Polynomial | None:
    number = constant(node, scope, local)
    if number is not None:
        return _summed({}, {(0, 0): Fraction(number)}) if math.isfinite(number) else None
    match node:
        case e.Name(text="value"):
            return {(0, 1): Fraction(1)}
        case e.Call() if print_expr(node) == f"{MEMORY}(key)":
            return {(1, 0): Fraction(1)}
        case e.Unary(operand=operand):
            inner = _polynomial(operand, scope, local)
            return None if inner is None else {power: -n for power, n in inner.items()}
        case e.Binary(op=op, left=left, right=right):
            one, other = _polynomial(left, scope, local), _polynomial(right, scope, local)
            return None if one is None or other is None else _together(op, one, other)
        case _:
            return None


def _together(op: str, one: Polynomial, other: Polynomial) -> Polynomial | None:
    """The sum, difference or product; quotients by numbers, and small whole powers."""
    if op in ("+", "-"):
        return _summed(one, other if op == "+" else {power: -n for power, n in other.items()})
    if op == "*":
        return _multiplied(one, other) if _degree(one) + _degree(other) <= MOST_POWER else None
    number = other.get((0, 0), Fraction(0)) if set(other) <= {(0, 0)} else None
    if op == "/":
        return _multiplied(one, {(0, 0): 1 / number}) if number else None
    if number is None or number.denominator != 1 or not 0 <= number <= MOST_POWER // max(_degree(one), 1):
        return None
    made: Polynomial = {(0, 0): Fraction(1)}
    for _ in range(int(number)):
        made = _multiplied(made, one)
    return made


def _degree(one: Polynomial) -> int:
    return max((a + b for a, b in one), default=0)


def _summed(one: Polynomial, other: Polynomial) -> Polynomial:
    made = {power: one.get(power, Fraction(0)) + other.get(power, Fraction(0)) for power in {**one, **other}}
    return {power: n for power, n in made.items() if n}


def _multiplied(one: Polynomial, other: Polynomial) -> Polynomial:
    made: Polynomial = {}
    for (a, b), n in one.items():
        for (c, d), m in other.items():
            made = _summed(made, {(a + c, b + d): n * m})
    return made


def constant(node: e.Expr, scope: Scope, local: frozenset[str]) -> int | float | None:
    """The value of what is a number wherever it stands; `None` of all else."""
    for inner in node.walk():
        if isinstance(inner, e.Name):
            if inner.text in local or not isinstance(scope.value(inner), Num):
                return None
        elif not isinstance(inner, e.Number | e.Unary | e.Binary):
            return None
    return scope.number(node).value


# --------------------------------------------------------------------------- expressions


@dataclass(slots=True)
class Writing:
    """One objective on its way from what is written to an `Expression`.

    `local`: the names of the memory's pipelines.  `flows`: what has been made of its fields; `made`: the
    parameters that come to them.
    """

    builder: Flows
    context: Context
    local: frozenset[str]
    heads: Num
    flows: dict[str, Flow]
    written: e.Expr
    several: bool = False
    made: dict[str, Flow] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    known: dict[tuple[str, str], e.Name] = field(default_factory=dict)

    def expression(self) -> Expression:
        """The objective; raises `Unresolved` after recording what is wrong with it."""
        if not asks(self.written):
            raise self._stop(
                self.written,
                f"the objective `{print_expr(self.written)}` asks the memory nothing",
                "no answer of the memory",
                "write `M(key)` for what the memory answers to the key, as in `(M(key) - value) ^ 2`",
            )
        body = self._part(self.written)
        return Expression(body, tuple(self.parameters.values()), _answers(body), print_expr(self.written))

    @property
    def _findings(self) -> Findings:
        return self.context.scope.findings

    def _stop(self, node: e.Expr, message: str, label: str, help: str) -> Unresolved:
        return self._findings.stop(CODE, message, node.span or self.written.span, label, help=help)

    # ------------------------------------------------------------------ parts

    def _part(self, node: e.Expr) -> e.Expr:
        """A part of the objective, in names of flows; what is known is computed."""
        number = constant(node, self.context.scope, self.local)
        if number is not None:
            return e.Number(number)
        match node:
            case e.Name(text="value"):
                return e.Name(("value",))
            case e.Name(text="key"):
                return self._key(node)
            case e.Name(text=text) if text not in self.local and isinstance(
                bound := self.context.scope.values.get(text), e.Expr
            ):
                return self._part(bound)
            case e.Unary(op=op, operand=operand):
                return e.Unary(op, self._part(operand))
            case e.Binary(op=op, left=left, right=right):
                return self._joined(node, op, self._part(left), self._part(right))
            case e.Call() if _answer(node):
                return self._answered(node)
            case e.Call() if _applied(node):
                if len(node.arguments) != 1 or node.arguments[0].name is not None:
                    raise self._stop(
                        node,
                        f"`{node.function.text}` is given {len(node.arguments)} arguments",
                        "one is wanted",
                        f"write `{node.function.text}(M(key) - value)`",
                    )
                return self._function(node, node.function.text, self._part(node.arguments[0].value))
            case e.Pipe(source=source, stages=stages) if asks(node):
                value = self._part(source)
                for stage in stages:
                    value = self._stage(stage, value)
                return value
            case _:
                return self._parameter(node, "value")

    def _joined(self, node: e.Expr, op: str, left: e.Expr, right: e.Expr) -> e.Expr:
        """`left op right`; numbers are joined at once."""
        made = e.Binary(op, left, right, span=node.span)
        if isinstance(left, e.Number) and isinstance(right, e.Number):
            return e.Number(self.context.scope.number(made).value)
        if op == "/" and isinstance(right, e.Number) and right.value == 0:
            raise self._findings.stop(
                "NL0205", f"`{print_expr(node)}` has no value: it is divided by 0", node.span, "has no value"
            )
        return made

    def _function(self, node: e.Expr, name: str, value: e.Expr) -> e.Expr:
        if not isinstance(value, e.Number):
            return e.Call(e.Name((name,)), (e.Argument(value),))
        try:
            return e.Number(FUNCTIONS[name](value.value))
        except (ValueError, OverflowError) as error:
            why = "the result is too large" if isinstance(error, OverflowError) else str(error)
            raise self._findings.stop(
                "NL0205", f"`{print_expr(node)}` has no value: {why}", node.span, "has no value"
            ) from None

    def _stage(self, node: e.Expr, value: e.Expr) -> e.Expr:
        """A stage behind an answer: functions of one number alone."""
        name = function_name(node)
        if name in FUNCTIONS and not (isinstance(node, e.Call) and node.arguments):
            return self._function(node, name, value)
        raise self._mixed(node)

    def _mixed(self, node: e.Expr) -> Unresolved:
        return self._stop(
            node,
            f"an answer goes through `{print_expr(node)}`, which is no function of one number",
            "looks at several numbers, or learns",
            "put it into `key`, `value` or the map; answers may go through "
            + ", ".join(f"`{f}`" for f in FUNCTIONS),
        )

    def _answered(self, node: e.Call) -> e.Expr:
        """`M(P)`."""
        if len(node.arguments) != 1 or node.arguments[0].name is not None:
            raise self._stop(
                node,
                f"`{print_expr(node)}` asks the memory {len(node.arguments) or 'nothing'}"
                + (" things at once" if node.arguments else ""),
                "one pipeline is wanted",
                "write `M(key)`",
            )
        given = node.arguments[0].value
        if asks(given):
            raise self._stop(
                node,
                f"`{print_expr(node)}` gives the memory an answer of its own",
                "an answer inside an answer",
                "ask for a pipeline, such as `M(key)`",
            )
        return e.Call(e.Name((MEMORY,)), (e.Argument(self._asked(given)),))

    def _asked(self, node: e.Expr) -> e.Expr:
        """What the memory is asked: a key, or something as wide."""
        text = node.text if isinstance(node, e.Name) else ""
        if text == "key" or (text == "value" and self._width("value") == self._width("key")):
            return e.Name((text,))
        return self._parameter(node, "key")

    def _key(self, node: e.Expr) -> e.Expr:
        if self._width("key") == self._width("value"):
            return e.Name(("key",))
        raise self._wide(node, f"{self._width('key')} numbers for each head", "value")

    # ------------------------------------------------------------------ parameters

    def _parameter(self, node: e.Expr, kind: Literal["value", "key"]) -> e.Expr:
        """What is computed outside, by the name of its flow."""
        self._known_function(node)
        if asks(node):
            raise self._mixed(node)
        text = node.text if isinstance(node, e.Name) else ""
        if text and (text, kind) in self.known:
            return self.known[text, kind]
        own = self._own(text)
        if own is None:
            flow = self._built(node, kind)
            name = self._fresh(text or str(1 + len(self.made)))
            self.made[name] = flow
        else:
            name, flow = text, own
        called = text or f"given_{len(self.made)}"
        called = name.replace("objective_", "given_") if called in TAKEN else called
        made = Parameter(name, self._kind(node, flow, kind), called)
        self.parameters[name] = made
        if text:
            self.known[text, kind] = e.Name((name,))
        return e.Name((name,))

    def _own(self, text: str) -> Flow | None:
        """A field that is made already and stands as it is."""
        if text == "query" or (text in ("rate", "retain", "momentum") and text in self.flows):
            if text == "rate" and self.several:
                raise self._findings.stop(
                    "NL0404",
                    "`rate` is several numbers for each token",
                    self.written.span,
                    "written one after the other",
                    help="give what the objective reads a name of its own",
                )
            return self.flows.get(text)
        return None

    def _fresh(self, wanted: str) -> str:
        taken = {*self.flows, *self.made, *self.local}
        name, count = f"objective_{wanted}", 1
        while name in taken:
            count += 1
            name = f"objective_{wanted}_{count}"
        return name

    def _built(self, node: e.Expr, kind: Literal["value", "key"]) -> Flow:
        """The pipeline, as numbers of each head."""
        flow = self.builder.build(node, self.context)
        shape, heads, width = flow.shape, int(self.heads), self._width(kind)
        if kind == "value" and shape.layout in ("scalar", "per head", "gate"):
            return flow
        if kind == "value" and shape.layout == "flat" and shape.features in (1, heads):
            return Apply(
                Shape("gate", Num(1), self.heads), "gate of heads", flow, {}, "", span=flow.span or node.span
            )
        if shape.layout in ("flat", "heads") and shape.features == heads * width:
            return split(flow, self.heads, self.context.scope, "a parameter of the objective")
        if shape.layout == "heads" and int(shape.width) == width:
            return shared(flow, self.heads)
        raise self._wide(node, str(flow.shape), kind)

    def _known_function(self, node: e.Expr) -> None:
        """A call of what is no function is told by its name."""
        name = node.function.text if isinstance(node, e.Call) else "learned"
        if name in PRIMITIVES or name in FUNCTIONS:
            return
        near = nearest(name, [MEMORY, *FUNCTIONS])
        raise self._findings.stop(
            "NL0200",
            f"there is no function called `{name}`",
            node.span,
            "unknown function",
            help=f"maybe `{near[0]}`"
            if near
            else "an objective knows " + ", ".join(f"`{f}`" for f in (MEMORY, *FUNCTIONS)),
        )

    def _kind(self, node: e.Expr, flow: Flow, kind: str) -> Literal["head", "value", "key"]:
        if flow.shape.layout != "heads":
            if kind == "key":
                raise self._wide(node, str(flow.shape), kind)
            return "head"
        if int(flow.shape.width) == self._width(kind):
            return "key" if kind == "key" else "value"
        raise self._wide(node, f"{int(flow.shape.width)} numbers for each head", kind)

    def _width(self, name: str) -> int:
        return int(self.flows[name].shape.width)

    def _wide(self, node: e.Expr, given: str, kind: str) -> Unresolved:
        width, heads = self._width(kind), int(self.heads)
        what = "the memory is asked for" if kind == "key" else "the objective joins an answer with"
        wanted = f"`linear({heads * width})` for as many as a {kind} has"
        one = f"`linear({heads})` for one number a head, or " if kind == "value" else ""
        span: Span | None = self.flows[kind].span
        return self._findings.stop(
            "NL0401",
            f"{what} `{print_expr(node)}`, which is {given}; a {kind} has {width} in a head",
            node.span or self.written.span,
            "the sizes differ",
            others=((span, f"the {kind}"),),
            help=f"end it with {one}{wanted}",
        )


def _answers(body: e.Expr) -> tuple[str, ...]:
    """The names that the memory is asked for, each once, in order."""
    asked = [print_expr(n.arguments[0].value) for n in body.walk() if isinstance(n, e.Call) and _answer(n)]
    return tuple(dict.fromkeys(asked))
