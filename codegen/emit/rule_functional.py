"""One step of a rule as a function of plain tensors: nothing in place, so that it can be differentiated.

    step(weight, grad, state, rate, step, **options) -> (weight, state)

A rule inside a sequence calls it; weights are `[..., rows, columns]`, what stands in front is a batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.emit.printer import flat, statement
from nldsl.codegen.emit.rule_classes import numbers
from nldsl.codegen.emit.rule_state import held_names, net_form, safe
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
    seen_signals,
)

_KERNELS = {
    "newton_schulz": "newton_schulz",
    "orthogonalised": "newton_schulz",
    "token_gram": "rule_parts",
    "rule_root": "rule_parts",
    "whole_mean": "rule_parts",
    "whole_norm": "rule_parts",
    "identity_beside": "rule_parts",
    "regressed_rows": "rule_parts",
    "regressed_rows_implicitly": "rule_parts",
    "rule_answer": "rule_parts",
    "rule_slope": "rule_parts",
    "descended_net": "rule_parts",
}
_MATH = frozenset({"sqrt", "exp", "log"})


@dataclass(frozen=True, slots=True)
class Functional:
    """The text of the function, the engines' functions that it calls (name to file), and whether `math`."""

    name: str
    text: str
    kernels: dict[str, str] = field(default_factory=dict)
    math: bool = False


def functional(algorithm: Algorithm) -> Functional:
    """The step of `algorithm` as the function `<name>_step`; `otherwise` is a rule of its own."""
    writer = _Writer(algorithm)
    text = "\n".join(statement(writer.function())) + "\n"
    kernels = {one: _KERNELS[one] for one in sorted(writer.kernels)}
    return Functional(f"{safe(algorithm.name)}_step", text, kernels, writer.math)


def inner_step(algorithm: Algorithm, name: str) -> tuple[c.Function, dict[str, str]]:
    """The same as a function for use inside the sequence, and the engines' functions that it calls.

    There the rate is a tensor, and the outer loss flows through the step: the slope of a root at 0 is 0.
    """
    writer = _Writer(algorithm, inside=True)
    made = replace(writer.function(), name=name)
    return made, {one: _KERNELS[one] for one in sorted(writer.kernels)}


class _Writer:
    def __init__(self, algorithm: Algorithm, *, inside: bool = False) -> None:
        self.algorithm, self.inside = algorithm, inside
        self.locals = dict(algorithm.locals)
        self.kernels: set[str] = set()
        self.math = False
        self.body: list[c.Step] = []
        self.seen = seen_signals(algorithm)

    def function(self) -> c.Function:
        """The function; what it needs is known afterwards."""
        algorithm = self.algorithm
        for name in algorithm.order:
            self._entry(name)
        held = [held for memory in algorithm.memories for held in held_names(memory)]
        items = tuple((one, c.name(safe(one))) for one in held)
        self.body.append(c.Return(c.Several((c.name("new_weight"), c.Mapping(items)), bare=True)))
        opening: list[c.Step] = []
        if self._mention("rows", "columns"):
            opening.append(c.Assign(c.name("rows, columns"), c.name("weight.shape[-2:]")))
        if "tokens" in self.seen and self.seen & {"input", "error"}:
            first = "inputs" if "input" in self.seen else "errors"
            opening.append(c.Assign(c.name("tokens"), c.name(f"{first}.shape[-2]")))
        opening += [c.Assign(c.name(safe(one)), c.name(f'state["{one}"]')) for one in held]
        kind = "Tensor" if self.inside else "float | Tensor"
        parameters = ["weight: Tensor", "grad: Tensor", "state: dict[str, Tensor]", f"rate: {kind}"]
        more = self.seen or any(map(self._mention, numbers(algorithm)))
        parameters += ["step: int", *(["*"] if more else []), *self._given()]
        parameters += [
            f"{name}: {'int' if isinstance(value, int) else 'float'} = {flat(literal(value))}"
            for name, value in numbers(algorithm).items()
            if self._mention(name)
        ]
        return c.Function(
            f"{safe(algorithm.name)}_step",
            tuple(parameters),
            "tuple[Tensor, dict[str, Tensor]]",
            (*opening, *self.body),
            f"One update of `{algorithm.name}`, number `step`: the weights and the state after it.",
        )

    def _given(self) -> list[str]:
        """Parameters for what layers saw."""
        given = [f"{n if n.endswith('_gram') else f'{n}s'}: Tensor" for n in sorted(self.seen - {"tokens"})]
        counted = "tokens" in self.seen and not self.seen & {"input", "error"}
        return [*given, "tokens: int"] if counted else given

    def _mention(self, *names: str) -> bool:
        """Whether one of these names stands in the statements."""
        text = "\n".join(line for step in self.body for line in statement(step))
        return re.search(rf"\b({'|'.join(names)})\b", text) is not None

    def _entry(self, name: str) -> None:
        if name in self.locals:
            self._let(safe(name), self.code(self.locals[name]))
        elif name == "weight":
            self._let("new_weight", self.code(self.algorithm.weight))
        else:
            self._write(self.algorithm.memory(name))

    def _let(self, name: str, value: c.Code) -> None:
        self.body.append(c.Assign(c.name(name), value))

    # ------------------------------------------------------------------- memories

    def _write(self, memory: RuleMemory) -> None:
        name = safe(memory.name)
        if memory.update is None:
            self.body += self._written(memory, self.code(memory.value))
            return
        block = f"{name}_period"
        self._let(block, c.Infix("+", c.name(block), self.code(memory.value)))
        period = self.code(memory.update)
        value: c.Code = c.name(block)
        if memory.reduce == "mean":
            value = c.Infix("/", value, period)
        zero = c.Assign(c.name(block), c.call("torch.zeros_like", block))
        inner = (*self._written(memory, value), zero)
        due = flat(c.Infix("==", c.Infix("%", c.name("step"), period), c.name("0")))
        self.body.append(c.Nested(f"if {due}", inner))

    def _written(self, memory: RuleMemory, value: c.Code) -> Sequence[c.Step]:
        name = safe(memory.name)
        own, rate = c.name(name), self.code(memory.rate)
        kept: c.Code = own if memory.retain is None else c.Infix("*", self.code(memory.retain), own)
        if memory.map.kind == "vector" and memory.key is None:
            change = c.Infix("-", value, kept) if memory.objective == "l2" else value
            return [c.Assign(own, c.Infix("+", kept, _times(rate, change)))]
        assert memory.key is not None
        key = self.code(memory.key)
        if memory.map.kind == "vector":
            return [c.Assign(own, self._keyed(memory, kept, rate, key, value))]
        named: list[tuple[str, c.Code]] = []
        if memory.objective == "l2" and memory.anchor == "current" and not memory.implicit:
            named.append(("current", c.name("True")))
        numbers_: list[c.Code] = [rate] if memory.retain is None else [rate, self.code(memory.retain)]
        if memory.map.kind == "mlp":
            named += [("dot", c.name("True"))] if memory.objective == "dot" else []
            layers = c.Several(tuple(c.name(safe(one)) for one in held_names(memory)))
            call = self._kernel("descended_net", layers, key, value, *numbers_, *named, *net_form(memory))
            return [c.Assign(c.Several(layers.items, bare=True), call)]
        if memory.objective == "dot":
            product = c.Infix("@", _turned(value), key)
            return [c.Assign(own, c.Infix("+", kept, _times(rate, product)))]
        kernel = "regressed_rows_implicitly" if memory.implicit else "regressed_rows"
        return [c.Assign(own, self._kernel(kernel, own, key, value, *numbers_, *named))]

    def _keyed(self, memory: RuleMemory, kept: c.Code, rate: c.Code, key: c.Code, value: c.Code) -> c.Code:
        """A vector with a key, number by number."""
        taught = _times(_times(rate, value), key)
        if memory.objective == "dot":
            return c.Infix("+", kept, taught)
        if memory.implicit:
            square = _times(_times(rate, key), key)
            return c.Infix("/", c.Infix("+", kept, taught), c.Infix("+", c.name("1"), square))
        at = c.name(safe(memory.name)) if memory.anchor == "current" else kept
        error = c.Infix("-", _times(at, key), value)
        return c.Infix("-", kept, _times(_times(rate, error), key))

    # ------------------------------------------------------------------- formulas

    def code(self, formula: Formula) -> c.Code:
        """A formula as an expression."""
        match formula:
            case Figure(value=value):
                return literal(value)
            case Option(name=name) | Local(name=name):
                return c.name(safe(name))
            case Signal(name=name):
                return c.name(f"{name}s" if name in ("input", "error") else name)
            case Negative(operand=operand):
                inner = self.code(operand)
                return c.Atom(f"-({flat(inner)})" if isinstance(inner, c.Infix) else f"-{flat(inner)}")
            case Operation(op=op, left=left, right=right):
                return c.Infix("**" if op == "^" else op, self.code(left), self.code(right))
            case Recall(memory=memory, query=None):
                return c.name(safe(memory))
            case Recall(memory=memory, query=query):
                assert query is not None
                return self._asked(self.algorithm.memory(memory), self.code(query))
            case Function():
                return self._function(formula)
            case _:
                raise TypeError(f"no formula: {type(formula).__name__}")

    def _asked(self, memory: RuleMemory, query: c.Code) -> c.Code:
        if memory.map.kind == "vector":
            return _times(c.name(safe(memory.name)), query)
        if memory.map.kind == "matrix":
            return c.Infix("@", query, c.name(f"{safe(memory.name)}.mT"))
        layers = c.Several(tuple(c.name(safe(one)) for one in held_names(memory)))
        return self._kernel("rule_answer", layers, query, *net_form(memory))

    def _function(self, formula: Function) -> c.Code:
        name, arguments = formula.name, formula.arguments
        if name == "jacobian" and isinstance(arguments[0], Recall) and arguments[0].query is not None:
            memory = self.algorithm.memory(arguments[0].memory)
            query = self.code(arguments[0].query)
            if memory.map.kind == "matrix":
                return c.name(safe(memory.name))
            layers = c.Several(tuple(c.name(safe(one)) for one in held_names(memory)))
            return self._kernel("rule_slope", layers, query, *net_form(memory))
        if name == "gram" and isinstance(arguments[0], Signal) and f"{arguments[0].name}_gram" in self.seen:
            return c.name(f"{arguments[0].name}_gram")
        given = [self.code(one) for one in arguments]
        orthogonal = "newton_schulz" if self.inside else "orthogonalised"
        matrices: dict[str, Callable[[], c.Code]] = {
            "orthogonal": lambda: self._kernel(orthogonal, *given),
            "transposed": lambda: _turned(given[0]),
            "times": lambda: c.Infix("@", given[0], given[1]),
            "solve": lambda: c.Invoke(
                "torch.linalg.solve", (given[1], given[0]), (("left", c.name("False")),)
            ),
            "gram": lambda: self._kernel("token_gram", *given),
            "identity": lambda: self._kernel("identity_beside", c.name("weight"), *given),
            "mean": lambda: self._kernel("whole_mean", *given),
            "norm": lambda: self._kernel("whole_norm", *given),
        }
        if name in matrices:
            return matrices[name]()
        return self._elementwise(formula, given)

    def _elementwise(self, formula: Function, given: list[c.Code]) -> c.Code:
        name = formula.name
        tensors = [self._is_tensor(one) for one in formula.arguments]
        if not any(tensors):
            if name in _MATH:
                self.math = True
                return c.Invoke(f"math.{name}", tuple(given))
            if name == "sign":
                self.math = True
                return c.Invoke("math.copysign", (c.name("1.0"), *given))
            return c.Invoke(name, tuple(given))
        if name == "sqrt" and self.inside:
            return self._kernel("rule_root", *given)
        if name in ("min", "max"):
            if all(tensors):
                return c.Invoke({"min": "torch.minimum", "max": "torch.maximum"}[name], tuple(given))
            tensor, number = given if tensors[0] else reversed(given)
            return c.Method(tensor, {"min": "clamp_max", "max": "clamp_min"}[name], (number,))
        return c.Invoke(f"torch.{name}", tuple(given))

    def _is_tensor(self, formula: Formula) -> bool:
        if formula.kind == "tensor":
            return True
        for node in formula.walk():
            if isinstance(node, Recall) or (isinstance(node, Function) and node.name in ("mean", "norm")):
                return True
            if self.inside and isinstance(node, Option) and node.name == "rate":
                return True
            if isinstance(node, Local) and self._is_tensor(self.locals[node.name]):
                return True
        return False

    def _kernel(self, name: str, *given: c.Code | tuple[str, c.Code]) -> c.Code:
        self.kernels.add(name)
        plain = tuple(one for one in given if not isinstance(one, tuple))
        return c.Invoke(name, plain, tuple(one for one in given if isinstance(one, tuple)))


def _times(left: c.Code, right: c.Code) -> c.Code:
    return right if isinstance(left, c.Atom) and left.text == "1" else c.Infix("*", left, right)


def _turned(value: c.Code) -> c.Code:
    text = flat(value)
    return c.Atom(f"{text}.mT" if isinstance(value, c.Atom) else f"({text}).mT")
