"""One rule as a class: what it holds for each weight, and how it changes lists of weights in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.emit.printer import flat, statement
from nldsl.codegen.emit.rule_change import MATH, OPERATORS, Change, method, sizes
from nldsl.codegen.emit.rule_state import class_name, held_names, safe
from nldsl.codegen.emit.rule_words import docstring
from nldsl.resolve.algorithm import (
    WEIGHT,
    Algorithm,
    Formula,
    Function,
    Negative,
    Operation,
    Option,
    RuleMemory,
)


@dataclass(frozen=True, slots=True)
class Made:
    """A class, the functions of the runtime that it calls, and the functions of torch's own steps."""

    steps: tuple[c.Step, ...]
    helpers: frozenset[str]
    imports: frozenset[str]


def write_class(algorithm: Algorithm, name: str, otherwise: str | None) -> Made:
    """The class of `algorithm` under `name`; `otherwise` names the rule of what is no matrix."""
    return _Class(algorithm, name, otherwise).made()


def numbers(algorithm: Algorithm) -> dict[str, float | int]:
    """The options of a rule as its class takes them: by variable name, counts as whole numbers."""
    made = _Class(algorithm, algorithm.name, None)
    return {safe(name): made.bound(name, value) for name, value in algorithm.options.items()}


class _Class:
    def __init__(self, algorithm: Algorithm, name: str, otherwise: str | None) -> None:
        self.algorithm = algorithm
        self.name = name
        self.otherwise = otherwise
        self.change = Change(algorithm)

    # ------------------------------------------------------------------- the class

    def made(self) -> Made:
        """The class with what it needs."""
        change = self.change.method()
        fields: list[c.Step] = []
        held = tuple(self.held())
        if held:
            fields.append(c.Assign(c.name("held"), _strings(held)))
        if self.change.seen:
            fields.append(c.Assign(c.name("seen"), _strings(self.change.seen)))
        if self.change.by_shape:
            fields.append(c.Assign(c.name("by_shape"), c.name("True")))
        if not (held or self.change.seen or "step" in self.change.signals):
            fields.append(c.Assign(c.name("remembers"), c.name("False")))
        if self.change.fused is not None or not held:
            fields.append(c.Assign(c.name("in_pieces"), c.name("False")))
        if self.algorithm.matrices and not self.change.seen:
            fields.append(c.Assign(c.name("matrices"), c.name("True")))
        if self.otherwise is not None:
            fields.append(c.Assign(c.name("otherwise"), c.name(class_name(self.otherwise))))
        fields += [c.Blank()] if fields else []
        body = (*fields, self.constructor(), *self.begin(), *self.aside(), *change)
        base = "LayerRule" if self.change.seen else "Rule"
        self.change.helpers |= self.change.steps.helpers | {base}
        if self.change.fused is not None:
            self.change.helpers |= set(self.change.fused.helpers)
        imports = (
            frozenset((self.change.fused.imported,)) if self.change.fused is not None else frozenset[str]()
        )
        shown = c.Class(class_name(self.name), (base,), body, docstring(self.algorithm, self.otherwise))
        return Made((shown,), frozenset(self.change.helpers), imports)

    def constructor(self) -> c.Step:
        """`__init__`: the options with their defaults."""
        options = self.algorithm.options
        parameters = ["self", "params: Parameters", "lr: float"]
        parameters += [
            f"{safe(k)}: {self.change.kind(k)} = {flat(literal(self.bound(k, v)))}"
            for k, v in options.items()
        ]
        checks = [_at_least_one(name) for name in self.change.periods()]
        passed = c.Invoke(
            "super().__init__",
            (c.name("params"), c.name("lr")),
            tuple((safe(k), c.name(safe(k))) for k in options),
        )
        return c.Function("__init__", tuple(parameters), "None", (*checks, c.Do(passed)))

    def bound(self, name: str, value: float | int) -> float | int:
        """The value of an option as its kind of number."""
        return int(value) if self.change.kind(name) == "int" else float(value)

    def held(self) -> Iterator[str]:
        """The names of what is kept for each weight."""
        for memory in self.algorithm.memories:
            yield from held_names(memory)
        yield from self.change.cached.values()

    def begin(self) -> Iterator[c.Step]:
        """`begin`, where not everything starts as zeros of the weight's shape."""
        memories = self.algorithm.memories
        if all(m.axes == WEIGHT and m.map.kind != "mlp" and m.start == "zeros" for m in memories):
            return
        items: list[tuple[str, c.Code]] = []
        body: list[c.Step] = [c.Assign(c.name("rows, columns"), c.name("weight.shape[-2:]"))]
        used = False
        for memory in memories:
            if memory.map.kind == "mlp":
                used = True
                names = [f"{memory.name}_{i + 1}" for i in range(memory.map.depth)]
                out, into = memory.axes
                hidden = literal(int(memory.map.hidden)) if memory.map.hidden else c.Atom(f"4 * {into}")
                widths = c.Several((c.name(into), *(hidden,) * (memory.map.depth - 1), c.name(out)))
                named = (("drawn", c.name("True")),) if memory.start == "drawn" else ()
                call = c.Invoke("first_layers", (c.name("weight"), widths), named)
                self.change.helpers.add("first_layers")
                target = ", ".join(names) if len(names) > 1 else f"({names[0]},)"
                body.append(c.Assign(c.name(target), call))
                items += [(one, c.name(one)) for one in names]
            else:
                code = self._start(memory)
                used = used or "rows" in flat(code) or "columns" in flat(code)
                items.append((memory.name, code))
            if memory.update is not None:
                items.append((f"{memory.name}_period", c.call("torch.zeros_like", "weight")))
        items += [(name, c.call("torch.zeros_like", "weight")) for name in self.change.cached.values()]
        body.append(c.Return(c.Mapping(tuple(items))))
        shown = "\n".join(line for step in body[1:] for line in statement(step))
        body[0] = sizes("weight", shown)
        yield from method(
            "begin", ("cls", "weight: Tensor"), "dict[str, Tensor]", body[0 if used else 1 :], "classmethod"
        )

    def _start(self, memory: RuleMemory) -> c.Code:
        if memory.axes == WEIGHT:
            return c.call("torch.zeros_like", "weight")
        return c.Atom(f"weight.new_zeros(*weight.shape[:-2], {', '.join(memory.axes)})")

    def aside(self) -> Iterator[c.Step]:
        """`aside`: the options of `otherwise`."""
        if self.otherwise is None or self.algorithm.otherwise is None:
            return
        given = self.algorithm.otherwise_options
        names = ["rate", *self.algorithm.otherwise.options]
        items = [(safe(name), self._of_group(given[name])) for name in names if name in given]
        items += [
            (safe(k), literal(v)) for k, v in self.algorithm.otherwise.options.items() if k not in given
        ]
        if "rate" not in given:
            items.insert(0, ("rate", c.name('group["lr"]')))
        if [k for k, _ in items] == ["rate"] and flat(items[0][1]) == 'group["lr"]':
            return
        body = [c.Return(c.Mapping(tuple(items)))]
        yield from method("aside", ("group: Group",), "dict[str, float]", body, "staticmethod")

    def _of_group(self, formula: Formula) -> c.Code:
        match formula:
            case Option(name=name):
                return c.name(f'group["{"lr" if name == "rate" else safe(name)}"]')
            case Operation(op=op, left=left, right=right):
                return c.Infix(OPERATORS.get(op, op), self._of_group(left), self._of_group(right))
            case Negative(operand=operand):
                return c.Infix("*", c.Atom("-1"), self._of_group(operand))
            case Function(name=name, arguments=arguments):
                return c.Invoke(MATH[name], tuple(self._of_group(one) for one in arguments))
            case _:
                return self.change.number(formula)


def _strings(values: tuple[str, ...]) -> c.Code:
    return c.Several(tuple(c.Atom(f'"{one}"') for one in values))


def _at_least_one(name: str) -> c.Step:
    said = f'raise ValueError(f"`{name}` is {{{safe(name)}}}; it has to be 1 or more")'
    return c.Nested(f"if {safe(name)} < 1", (c.Do(c.Atom(said)),))
