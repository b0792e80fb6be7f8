"""Rules as they are defined, one weight at a time: formulas are worked out where they are read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nldsl.resolve.algorithm import (
    Algorithm,
    Figure,
    Formula,
    Function,
    Local,
    Negative,
    Operation,
    Option,
    Recall,
    RuleMemory,
    Signal,
)

Value = Any


class Naive:
    """One weight matrix and what a rule remembers of it."""

    def __init__(self, algorithm: Algorithm, weight: Tensor, options: dict[str, float]) -> None:
        self.algorithm, self.weight, self.options = algorithm, weight, options
        self.locals = dict(algorithm.locals)
        self.held: dict[str, Tensor] = {}
        self.waiting: dict[str, list[Tensor]] = {memory.name: [] for memory in algorithm.memories}
        self.count = 0

    def step(self, grad: Tensor, rate: float, **seen: Tensor) -> Tensor:
        """One update."""
        self.count += 1
        rows, columns = self.weight.shape[-2:] if self.weight.ndim > 1 else (1, self.weight.numel())
        self.signals: dict[str, Value] = {"grad": grad, "weight": self.weight, "step": self.count}
        self.signals |= {"rows": rows, "columns": columns, **seen}
        if "input" in seen:
            self.signals["tokens"] = len(seen["input"])
        self.numbers = {**self.options, "rate": rate}
        self.new: dict[str, Tensor] = {}
        weight = self.value(self.algorithm.weight)
        for memory in self.algorithm.memories:
            self.written(memory)
        self.held |= self.new
        self.weight = weight
        return weight

    # ------------------------------------------------------------------- memories

    def old(self, memory: RuleMemory) -> Tensor:
        if memory.name not in self.held:
            sizes = [int(self.signals[axis]) for axis in memory.axes]
            shape = self.weight.shape if memory.map.kind == "vector" else (*self.weight.shape[:-2], *sizes)
            self.held[memory.name] = torch.zeros(shape, dtype=torch.float64)
        return self.held[memory.name]

    def read(self, memory: RuleMemory) -> Tensor:
        if memory.read == "before" or memory.update is not None:
            return self.old(memory)
        return self.written(memory)

    def written(self, memory: RuleMemory) -> Tensor:
        if memory.name in self.new:
            return self.new[memory.name]
        value = self.value(memory.value)
        if memory.update is not None:
            block = self.waiting[memory.name]
            block.append(value)
            if self.count % int(self.value(memory.update)):
                self.new[memory.name] = self.old(memory)
                return self.old(memory)
            total = torch.stack(block).sum(0)
            value = total / len(block) if memory.reduce == "mean" else total
            block.clear()
        self.new[memory.name] = made = self.after(memory, value)
        return made

    def after(self, memory: RuleMemory, value: Value) -> Tensor:
        """By the gradient of the objective, or for an implicit step by solving for where it vanishes."""
        old, rate = self.old(memory), self.value(memory.rate)
        kept = (self.value(memory.retain) if memory.retain is not None else 1.0) * old
        key = self.value(memory.key) if memory.key is not None else None

        def said(m: Tensor) -> Tensor:
            if key is None:
                return m
            return m * key if memory.map.kind == "vector" else key @ m.mT

        if memory.implicit:
            assert key is not None
            if memory.map.kind == "vector":
                return (kept + rate * value * key) / (1 + rate * key * key)
            square = torch.eye(key.shape[-1], dtype=torch.float64) + rate * key.mT @ key
            return (kept + rate * value.mT @ key) @ torch.linalg.inv(square)

        def loss(m: Tensor) -> Tensor:
            told = said(m)
            return (told - value).square().sum() / 2 if memory.objective == "l2" else -(told * value).sum()

        at = old if memory.anchor == "current" else kept
        return kept - rate * torch.func.grad(loss)(at)

    # ------------------------------------------------------------------- formulas

    def value(self, formula: Formula) -> Value:
        match formula:
            case Figure(value=value):
                return float(value)
            case Option(name=name):
                return self.numbers[name]
            case Signal(name=name):
                return self.signals[name]
            case Local(name=name):
                return self.value(self.locals[name])
            case Negative(operand=operand):
                return -self.value(operand)
            case Operation(op=op, left=left, right=right):
                a, b = self.value(left), self.value(right)
                return {"+": _add, "-": _sub, "*": _mul, "/": _div, "^": _pow}[op](a, b)
            case Recall(memory=name, query=query):
                memory = self.algorithm.memory(name)
                held = self.read(memory)
                if query is None:
                    return held
                asked = self.value(query)
                return held * asked if memory.map.kind == "vector" else asked @ held.mT
            case Function(name=name, arguments=arguments):
                return _call(name, [self.value(one) for one in arguments])
            case _:
                raise TypeError(type(formula).__name__)


def _add(a: Value, b: Value) -> Value:
    return a + b


def _sub(a: Value, b: Value) -> Value:
    return a - b


def _mul(a: Value, b: Value) -> Value:
    return a * b


def _div(a: Value, b: Value) -> Value:
    return a / b


def _pow(a: Value, b: Value) -> Value:
    return a**b


def newton_schulz(matrix: Tensor, rounds: int) -> Tensor:
    """By singular values, matrix by matrix."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (s.norm(dim=-1, keepdim=True) + 1e-7)
    for _ in range(rounds):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ (s.unsqueeze(-1) * v)


def _call(name: str, given: list[Value]) -> Value:
    if name in ("min", "max"):
        tensors = [torch.as_tensor(one, dtype=torch.float64) for one in given]
        made = torch.minimum(*tensors) if name == "min" else torch.maximum(*tensors)
        return made if any(isinstance(one, Tensor) for one in given) else made.item()
    first = given[0]
    if not isinstance(first, Tensor):
        plain = {"sqrt": math.sqrt, "exp": math.exp, "log": math.log, "abs": abs}
        if name == "identity":
            return torch.eye(int(first), dtype=torch.float64)
        if name == "sign":
            return float((first > 0) - (first < 0))
        return plain[name](first)
    matrices = {
        "mean": lambda: first.mean((-2, -1), keepdim=True) if first.ndim > 1 else first.mean(),
        "norm": lambda: first.square().sum((-2, -1), keepdim=True).sqrt() if first.ndim > 1 else first.norm(),
        "orthogonal": lambda: newton_schulz(first, int(given[1])),
        "transposed": lambda: first.mT,
        "times": lambda: first @ given[1],
        "solve": lambda: first @ torch.linalg.inv(given[1]),
        "gram": lambda: first.mT @ first / first.shape[-2],
    }
    return matrices[name]() if name in matrices else getattr(torch, name)(first)
