"""The number at which a gate begins, before anything is learned."""

from __future__ import annotations

import math

from nldsl.ablate.propose.subject import Part
from nldsl.document import expr as e
from nldsl.resolve.primitives import PRIMITIVES


def begins_at(part: Part, value: e.Expr) -> float | None:
    """What a gate gives with fresh weights, for features around 0; None where its stages do not tell.

    Projections of features whose mean is 0 have mean 0, so `sigmoid(start = s)` begins at s, `sigmoid` at a
    half, `softplus` at log 2.
    """
    match value:
        case e.Number(value=number):
            return float(number)
        case e.Unary(op="-", operand=operand):
            inner = begins_at(part, operand)
            return -inner if inner is not None else None
        case e.Name(parts=("x",)):
            return 0.0
        case e.Name(parts=(name,)):
            return _named(part, name)
        case e.Binary(op=op, left=left, right=right):
            return _arithmetic(op, begins_at(part, left), begins_at(part, right))
        case e.Call(function=function) if len(value.positional) == 1 and function.text in (
            "exp",
            "sqrt",
            "log",
        ):
            return _function(function.text, begins_at(part, value.positional[0]))
        case e.Call(function=e.Name(parts=("learned",))):
            start = value.get("start")
            return begins_at(part, start) if start is not None else 0.0
        case e.Pipe(source=source, stages=stages):
            return _piped(part, begins_at(part, source), stages)
        case _:
            return None


def _named(part: Part, name: str) -> float | None:
    number = part.number(name)
    if number is not None:
        return float(number)
    local = part.fields.get(name)
    return begins_at(part, local) if local is not None else None


def _function(name: str, value: float | None) -> float | None:
    """None where the function has no value, or one that no gate has."""
    if value is None:
        return None
    match name:
        case "exp":
            return math.exp(value) if abs(value) <= 50 else None
        case "sqrt":
            return math.sqrt(value) if value >= 0 else None
        case _:
            return math.log(value) if value > 0 else None


def _arithmetic(op: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right if right else None
        case _:
            return left**right if left > 0 else None


def _piped(part: Part, value: float | None, stages: tuple[e.Expr, ...]) -> float | None:
    for stage in stages:
        value = _stage(part, value, stage) if value is not None else None
    return value


def _stage(part: Part, value: float, stage: e.Expr) -> float | None:
    name = (
        stage.text if isinstance(stage, e.Name) else stage.function.text if isinstance(stage, e.Call) else ""
    )
    start = _start(part, stage)
    match name:
        case "sigmoid":
            return start if start is not None else (1 + math.tanh(value / 2)) / 2
        case "softplus":
            return start if start is not None else max(value, 0.0) + math.log1p(math.exp(-abs(value)))
        case "scale":
            assert isinstance(stage, e.Call)
            by = begins_at(part, stage.arguments[0].value)
            return value * by if by is not None else None
        case "tanh":
            return math.tanh(value)
        case "linear" | "conv":
            return 0.0
        case "" if isinstance(stage, e.Phrase) and stage.head == "adaptive":
            return 0.0
        case _:
            return 0.0 if value == 0.0 and name in PRIMITIVES and name not in ("exp", "learned") else None


def _start(part: Part, stage: e.Expr) -> float | None:
    if not isinstance(stage, e.Call) or not stage.arguments:
        return None
    given = stage.get("start") or (stage.positional[0] if stage.positional else None)
    return begins_at(part, given) if given is not None else None
