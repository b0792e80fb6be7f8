"""Rules with the algebra of a step that torch has as one kernel: SGD with momentum, Adagrad, Adam, AdamW.

A rule is compared with torch's formulas, memory by memory, whatever it is called: options that could be the
decay and the epsilon are tried, and the formulas have to agree (see `rule_numbers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit import rule_numbers as n
from nldsl.resolve.algorithm import (
    Algorithm,
    Figure,
    Formula,
    Function,
    Operation,
    Option,
    Recall,
    RuleMemory,
    Signal,
)

GRAD = Signal(kind="tensor", name="grad")
WEIGHT = Signal(kind="tensor", name="weight")
STEP = Signal(kind="number", name="step")
RATE = Option(kind="number", name="rate")
TWO = Figure(kind="number", value=2)


@dataclass(frozen=True, slots=True)
class Fused:
    """A call of torch's own step; `lists` are its memories in torch's order."""

    function: str
    lists: tuple[c.Code, ...]
    named: tuple[tuple[str, Formula | bool], ...]
    counted: bool = True

    @property
    def imported(self) -> str:
        """The line that brings it."""
        return f"from torch.optim.{self.function} import {self.function}"

    @property
    def helpers(self) -> tuple[str, ...]:
        """The functions of the runtime that it needs."""
        return ("fusable", "counts") if self.counted else ("fusable",)

    def call(self, number: Callable[[Formula], c.Code]) -> list[c.Step]:
        """The call, with `number` to write its numbers."""
        given = [c.name("weights"), c.name("grads"), *self.lists]
        if self.counted:
            given.append(c.call("counts", "weights", "step"))
        named = [(k, c.name(str(v)) if isinstance(v, bool) else number(v)) for k, v in self.named]
        flavour = (("fused", c.name("fused")), ("foreach", c.name("not fused")))
        call = c.Invoke(self.function, tuple(given), (*named, *flavour, ("maximize", c.name("False"))))
        return [c.Assign(c.name("fused"), c.call("fusable", "weights")), c.Do(call)]


def fused(algorithm: Algorithm) -> Fused | None:
    """The step of torch that `algorithm` is, if it is one."""
    if not _plain(algorithm):
        return None
    match len(algorithm.memories):
        case 1:
            return _momentum(algorithm) or _adagrad(algorithm)
        case 2:
            return _adam(algorithm)
        case _:
            return None


def _plain(algorithm: Algorithm) -> bool:
    """Whether it works number by number on gradients and weights, with plain memories."""
    if algorithm.matrices or algorithm.signals() - {"grad", "weight", "step"}:
        return False
    nodes = [node for f in algorithm.formulas() for node in f.walk()]
    if any(isinstance(node, Function) and node.name not in n.ELEMENTWISE for node in nodes):
        return False
    if any(isinstance(node, Recall) and node.query is not None for node in nodes):
        return False
    return all(
        m.map.kind == "vector"
        and m.key is None
        and m.update is None
        and m.read == "after"
        and m.start == "zeros"
        and not any(isinstance(leaf, Recall) for leaf in n.leaves(m.value, dict(algorithm.locals)))
        for m in algorithm.memories
    )


def _tensor(op: str, left: Formula, right: Formula) -> Formula:
    return Operation(kind="tensor", op=op, left=left, right=right)


def _held(memory: RuleMemory) -> Formula:
    return Recall(kind="tensor", memory=memory.name)


def _list(memory: RuleMemory) -> c.Code:
    return c.name(f'memory["{memory.name}"]')


def _decayed(decay: Formula) -> Formula:
    """`grad + decay * weight`."""
    return _tensor("+", GRAD, _tensor("*", decay, WEIGHT))


def _numbers(algorithm: Algorithm) -> Iterator[Formula]:
    """What could be a decay or an epsilon."""
    yield from (Option(kind="number", name=name) for name in algorithm.options)
    yield n.ZERO
    seen: list[Formula] = []
    for formula in algorithm.formulas():
        for node in formula.walk():
            if isinstance(node, Figure) and node not in seen and node.value != 0:
                seen.append(node)
                yield Figure(kind="number", value=node.value)


def _decays(algorithm: Algorithm) -> Iterator[Formula]:
    yield from (f for f in _numbers(algorithm) if isinstance(f, Option) or n.is_figure(f, 0))


def _same(one: Formula, other: Formula, locals_: Mapping[str, Formula]) -> bool:
    return n.same(one, other, locals_)


def _kept(memory: RuleMemory) -> Formula:
    """What a memory keeps of itself."""
    retain = memory.retain if memory.retain is not None else n.ONE
    return n.times(retain, n.minus(n.ONE, memory.rate)) if memory.objective == "l2" else retain


def _sgd(held: c.Code, decay: Formula, momentum: Formula, dampening: Formula, *, nesterov: bool) -> Fused:
    named: tuple[tuple[str, Formula | bool], ...] = (
        ("lr", RATE),
        ("weight_decay", decay),
        ("momentum", momentum),
        ("dampening", dampening),
        ("nesterov", nesterov),
    )
    return Fused("sgd", (held,), named, counted=False)


def _momentum(algorithm: Algorithm) -> Fused | None:
    known = dict(algorithm.locals)
    (memory,) = algorithm.memories
    keeps = _kept(memory)
    dampening = n.minus(n.ONE, memory.rate)
    # Without momentum torch leaves out the dampening too, so that it has to be nothing then.
    if not (n.is_figure(dampening, 0) or _same(dampening, keeps, known)):
        return None
    for decay in _decays(algorithm):
        slope = _decayed(decay)
        if not _same(memory.value, slope, known):
            continue
        ahead = _tensor("+", slope, _tensor("*", keeps, _held(memory)))
        for nesterov, direction in ((False, _held(memory)), (True, ahead)):
            if _same(algorithm.weight, _tensor("-", WEIGHT, _tensor("*", RATE, direction)), known):
                held = c.name(f'[*memory["{memory.name}"]]')
                return _sgd(held, decay, keeps, dampening, nesterov=nesterov)
    return None


def _adagrad(algorithm: Algorithm) -> Fused | None:
    known = dict(algorithm.locals)
    (memory,) = algorithm.memories
    if memory.objective != "dot" or not (n.is_figure(_kept(memory), 1) and n.is_figure(memory.rate, 1)):
        return None
    for decay in _decays(algorithm):
        slope = _decayed(decay)
        if not _same(memory.value, _tensor("^", slope, TWO), known):
            continue
        for eps in _numbers(algorithm):
            moved = _tensor("/", _tensor("*", RATE, slope), _root(_held(memory), eps))
            if _same(algorithm.weight, _tensor("-", WEIGHT, moved), known):
                named: tuple[tuple[str, Formula | bool], ...] = (
                    ("lr", RATE),
                    ("weight_decay", decay),
                    ("lr_decay", n.ZERO),
                    ("eps", eps),
                )
                return Fused("adagrad", (_list(memory),), named)
    return None


def _root(square: Formula, eps: Formula) -> Formula:
    return _tensor("+", Function(kind="tensor", name="sqrt", arguments=(square,)), eps)


def _adam(algorithm: Algorithm) -> Fused | None:
    known = dict(algorithm.locals)
    for first, second in permutations(algorithm.memories):
        if any(m.objective != "l2" or not n.is_figure(m.retain or n.ONE, 1) for m in (first, second)):
            return None
        for decay in _decays(algorithm):
            for apart in (True, False):
                slope = GRAD if apart else _decayed(decay)
                if not _same(first.value, slope, known) or not _same(
                    second.value, _tensor("^", slope, TWO), known
                ):
                    continue
                if (eps := _epsilon(algorithm, first, second, decay if apart else n.ZERO)) is not None:
                    return _adam_call("adamw" if apart else "adam", first, second, decay, eps)
    return None


def _epsilon(algorithm: Algorithm, first: RuleMemory, second: RuleMemory, decay: Formula) -> Formula | None:
    """The epsilon with which the weights change as Adam's do."""
    kept = _tensor("*", WEIGHT, n.minus(n.ONE, n.times(RATE, decay)))
    above = _tensor("*", RATE, _tensor("/", _held(first), _missing(first)))
    below = _tensor("/", _held(second), _missing(second))
    for eps in _numbers(algorithm):
        made = _tensor("-", kept, _tensor("/", above, _root(below, eps)))
        if _same(algorithm.weight, made, dict(algorithm.locals)):
            return eps
    return None


def _missing(memory: RuleMemory) -> Formula:
    """`1 - beta ^ step`."""
    power = Operation(kind="number", op="^", left=_kept(memory), right=STEP)
    return n.minus(n.ONE, power)


def _adam_call(function: str, first: RuleMemory, second: RuleMemory, decay: Formula, eps: Formula) -> Fused:
    named: tuple[tuple[str, Formula | bool], ...] = (
        ("amsgrad", False),
        ("beta1", _kept(first)),
        ("beta2", _kept(second)),
        ("lr", RATE),
        ("weight_decay", decay),
        ("eps", eps),
    )
    return Fused(function, (_list(first), _list(second), c.name("[]")), named)
