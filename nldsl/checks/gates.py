"""Where the outputs of a pipeline lie: always, and before anything is learned.

Bounds come from interval arithmetic over the stages.  The value before training takes every linear
map of the input as zero, which is its mean: a plain `sigmoid` starts at 0.5, one with `start` there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nldsl.records import record
from nldsl.resolve.expanded import Apply, Arithmetic, Constant, Flow, MemoryInstance, Num, Variable
from nldsl.resolve.sides import inner_flows

INF = math.inf
LAYOUTS = ("split heads", "merge heads", "share heads", "gate of heads", "in turn")
KEEPS_LENGTH = (*LAYOUTS, "rope")


@record
class Interval:
    """All numbers from `low` to `high`."""

    low: float
    high: float

    def within(self, low: float, high: float) -> bool:
        """Whether every number of this interval lies from `low` to `high`."""
        return low <= self.low and self.high <= high


ANY = Interval(-INF, INF)
ZERO = Interval(0.0, 0.0)


def bounds(flow: Flow, instance: MemoryInstance) -> Interval:
    """Where a pipeline's outputs lie whatever is learned."""
    return _interval(flow, instance, False)


def at_start(flow: Flow, instance: MemoryInstance) -> Interval:
    """Where a pipeline's outputs lie on average before training."""
    return _interval(flow, instance, True)


def is_constant(flow: Flow) -> bool:
    """Whether a pipeline reads nothing of the sequence, so that its outputs are known."""
    return all(not isinstance(n, Variable) or n.name == "head" for n in flow.walk()) and not any(
        isinstance(n, Apply) and n.primitive not in LAYOUTS for n in flow.walk()
    )


def has_unit_length(flow: Flow, instance: MemoryInstance) -> bool:
    """Whether every vector of a pipeline is divided by its length at the end."""
    while True:
        if isinstance(flow, Variable) and flow.name in inner_flows(instance):
            flow = inner_flows(instance)[flow.name]
        elif isinstance(flow, Apply) and flow.primitive in KEEPS_LENGTH:
            flow = flow.input
        else:
            return isinstance(flow, Apply) and flow.primitive == "unit"


def _interval(flow: Flow, instance: MemoryInstance, first: bool) -> Interval:
    match flow:
        case Constant(number=number):
            return Interval(float(number), float(number))
        case Variable(name="head"):
            return Interval(0.0, float(int(instance.heads) - 1))
        case Variable(name=name) if name in inner_flows(instance):
            return _interval(inner_flows(instance)[name], instance, first)
        case Apply(input=source):
            return _stage(flow, _interval(source, instance, first), first)
        case Arithmetic(op=op, left=left, right=right):
            return _together(op, _interval(left, instance, first), _interval(right, instance, first))
        case _:
            return ZERO if first else ANY


def sigmoid(inner: Interval) -> Interval:
    """The sigmoid of an interval."""
    return Interval(_sigmoid(inner.low), _sigmoid(inner.high))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= -700 else 0.0


def _softplus(x: float) -> float:
    return x if x > 30 else math.log1p(math.exp(x))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else INF


_MONOTONE: dict[str, Callable[[float], float]] = {
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "exp": _exp,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "elu": lambda x: x if x > 0 else _exp(x) - 1,
}
_LEAST = {"silu": -0.2785, "gelu": -0.17}


def _stage(node: Apply, inner: Interval, first: bool) -> Interval:
    name, start = node.primitive, node.arguments.get("start")
    if name in LAYOUTS or name == "dropout":
        return inner
    if name == "learned" and first and isinstance(start, Num) and not isinstance(node.input, Constant):
        return _together("*", inner, Interval(float(start), float(start)))
    if first and isinstance(start, Num):
        return Interval(float(start), float(start))
    if name in _MONOTONE:
        if isinstance(start, Num):  # a learned bias goes anywhere
            inner = ANY
        return Interval(_MONOTONE[name](inner.low), _MONOTONE[name](inner.high))
    by = node.arguments.get("by")
    if name == "scale" and isinstance(by, Num):
        return _together("*", inner, Interval(float(by), float(by)))
    if name in _LEAST:
        return Interval(min(0.0, inner.low) and _LEAST[name], max(0.0, inner.high))
    if name == "unit":
        return Interval(-1.0, 1.0)
    return ZERO if first else ANY


def _together(op: str, a: Interval, b: Interval) -> Interval:
    corners = [_result(op, x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    crosses = (op == "/" and b.low <= 0 <= b.high) or (op == "^" and a.low <= 0)
    known = [c for c in corners if c is not None]
    if crosses and not (op == "^" and b.low == b.high and b.low > 0):
        return ANY
    if len(known) < len(corners) or not known:
        return ANY
    low, high = min(known), max(known)
    if op == "^" and a.low <= 0 <= a.high:
        low = min(low, 0.0)
    return Interval(low, high)


def _result(op: str, x: float, y: float) -> float | None:
    try:
        match op:
            case "+":
                value = x + y
            case "-":
                value = x - y
            case "*":
                value = 0.0 if 0 in (x, y) else x * y
            case "/":
                value = x / y
            case _:
                value = math.pow(x, y)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return None if math.isnan(value) else value
