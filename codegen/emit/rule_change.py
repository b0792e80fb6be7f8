"""How one rule changes lists of weights: its memories, its values and the weights, in place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit import rule_numbers as n
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.emit.printer import flat, statement
from nldsl.codegen.emit.rule_state import RESERVED, net_form, safe
from nldsl.codegen.emit.rule_steps import Steps
from nldsl.codegen.emit.rule_terms import (
    Applied,
    Atom,
    Held,
    Sum,
    Term,
    Terms,
    of_atom,
    plain_number,
    product,
)
from nldsl.codegen.emit.rule_torch import Fused, fused
from nldsl.resolve.algorithm import (
    FOR_MATRICES,
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

MATH = {"sqrt": "math.sqrt", "exp": "math.exp", "log": "math.log", "abs": "abs", "min": "min", "max": "max"}
OPERATORS = {"^": "**"}


class Change:
    """How a rule changes lists of weights; `helpers` and `cached` fill while it is written."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.locals = dict(algorithm.locals)
        self.fused: Fused | None = fused(algorithm)
        self.signals = frozenset(
            node.name for f in algorithm.formulas() for node in f.walk() if isinstance(node, Signal)
        )
        self.seen = tuple(sorted(seen_signals(algorithm)))
        self.cached: dict[Applied, str] = {}
        self.helpers: set[str] = set()
        self.inlined, self.numbers = self._sorted_locals()
        lists = {"signal grad": "grads", "signal weight": "weights"}
        lists |= {f"signal {s}": f"{s}s" for s in ("input", "error")}
        lists |= {f"memory {m.name}": safe(m.name) for m in algorithm.memories}
        self.terms = Terms(lists, self.inlined, self.numbers)
        taken = {*RESERVED, "rate", *map(safe, algorithm.options), *lists.values(), *map(safe, self.numbers)}
        later = set(self.locals) - set(self.inlined)
        self.steps = Steps(taken | later, self.number, self.map_call)

    # ------------------------------------------------------------------- what is what

    def _sorted_locals(self) -> tuple[dict[str, Formula], frozenset[str]]:
        """Locals that are worked out where they stand, and those that are numbers of their own."""
        uses = Counter(
            node.name for f in self.algorithm.formulas() for node in f.walk() if isinstance(node, Local)
        )
        inlined: dict[str, Formula] = {}
        numbers: set[str] = set()
        for name in (one for one in self.algorithm.order if one in self.locals):
            formula = self.locals[name]
            if isinstance(formula, Figure):
                inlined[name] = formula
            elif plain_number(formula, self.locals):
                numbers.add(name)
            elif uses[name] == 1 and not self._stale(name):
                inlined[name] = formula
        return inlined, frozenset(numbers)

    def _stale(self, name: str) -> bool:
        """Whether what a local reads has changed where it is used."""
        order = list(self.algorithm.order)
        begin = order.index(name)
        users = [one for one in order[begin + 1 :] if name in self._reads(one)]
        end = order.index(users[0]) if users else begin
        return any(one in self._reads(name) or one == "weight" for one in order[begin + 1 : end])

    def _reads(self, name: str) -> set[str]:
        """Memories and locals that one entry of the order reads."""
        found: set[str] = set()
        for formula in self._formulas(name):
            for node in formula.walk():
                if isinstance(node, Recall):
                    found.add(node.memory)
                elif isinstance(node, Local):
                    found |= {node.name, *self._reads(node.name)}
        return found

    def _formulas(self, name: str) -> tuple[Formula, ...]:
        if name in self.locals:
            return (self.locals[name],)
        return (self.algorithm.weight,) if name == "weight" else self.algorithm.memory(name).formulas()

    @property
    def by_shape(self) -> bool:
        nodes = [node for f in self.algorithm.formulas() for node in f.walk()]
        return (
            bool(self.signals & {"rows", "columns", "tokens"})
            or any((isinstance(node, Function) and node.name in FOR_MATRICES) for node in nodes)
            or any(m.map.kind == "matrix" for m in self.algorithm.memories)
        )

    def kind(self, option: str) -> str:
        """`int` for what counts something."""
        nodes = [node for f in self.algorithm.formulas() for node in f.walk() if isinstance(node, Function)]
        counts = {
            a.name
            for node in nodes
            if node.name == "orthogonal"
            for a in node.arguments[1:]
            if isinstance(a, Option)
        }
        return "int" if option in counts | set(self.periods()) else "float"

    def periods(self) -> list[str]:
        """Options that are a period."""
        found = (m.update.name for m in self.algorithm.memories if isinstance(m.update, Option))
        return list(dict.fromkeys(found))

    # ------------------------------------------------------------------- numbers

    def number(self, formula: Formula) -> c.Code:
        """A number as Python."""
        match formula:
            case Figure(value=value):
                return literal(int(value) if float(value).is_integer() and abs(value) < 1000 else value)
            case Option(name=name) | Local(name=name) | Signal(name=name) if not (
                isinstance(formula, Local) and name in self.inlined
            ):
                return c.name(name if isinstance(formula, Signal) else safe(name))
            case Local(name=name):
                return self.number(self.inlined[name])
            case Negative(operand=operand):
                inner = self.number(operand)
                return c.Atom(f"-({flat(inner)})" if isinstance(inner, c.Infix) else f"-{flat(inner)}")
            case Operation(op=op, left=left, right=right):
                return c.Infix(OPERATORS.get(op, op), self.number(left), self.number(right))
            case Function(name="sign", arguments=(argument,)):
                return c.call("math.copysign", "1.0", self.number(argument))
            case Function(name=name, arguments=arguments):
                return c.Invoke(MATH[name], tuple(self.number(one) for one in arguments))
            case _:
                raise TypeError(f"no number: {type(formula).__name__}")

    # ------------------------------------------------------------------- change

    def method(self) -> list[c.Step]:
        """`change`: the memories, the locals and the weights, in their order."""
        if self.fused is not None:
            body = self.fused.call(self.number)
        else:
            for name in self.algorithm.order:
                self._entry(name)
            body = [*self._opening(), *self.steps.body] or [c.Do(c.name("pass"))]
        shown = "\n".join(line for step in body for line in statement(step))
        used = [k for k in self.algorithm.options if re.search(rf"\b{safe(k)}\b", shown)]
        options = [f"{safe(k)}: {self.kind(k)}" for k in used]
        if len(used) < len(self.algorithm.options):
            options.append("**_: float")
        parameters = (
            "weights: list[Tensor]",
            "grads: list[Tensor]",
            "memory: Memory",
            "step: int",
            "rate: float",
            *options,
        )
        return list(method("change", parameters, "None", body, "staticmethod"))

    def _opening(self) -> Iterator[c.Step]:
        shown = "\n".join(line for step in self.steps.body for line in statement(step))
        if re.search(r"\b(rows|columns)\b", shown):
            yield sizes("weights[0]", shown)
        plain = [m for m in self.algorithm.memories if m.map.kind != "mlp"]
        plain_names = [m.name for m in plain]
        plain_names += [f"{m.name}_period" for m in self.algorithm.memories if m.update is not None]
        plain_names += [*self.cached.values()]
        for names in (plain_names[i : i + 3] for i in range(0, len(plain_names), 3)):
            lists = [c.name(f'memory["{one}"]') for one in names]
            values = c.Several(tuple(lists), bare=True) if len(lists) > 1 else lists[0]
            yield c.Assign(c.name(", ".join(safe(one) for one in names)), values)
        for memory in self.algorithm.memories:
            if memory.map.kind == "mlp":
                lists = ", ".join(f'memory["{memory.name}_{i + 1}"]' for i in range(memory.map.depth))
                nets = c.Atom(f"list(zip({lists}, strict=True))")
                yield c.Assign(c.name(safe(memory.name)), nets)
        for name in self.seen:
            if name == "tokens":
                yield c.Assign(c.name("tokens"), c.name('int(memory["tokens"][0])'))
                continue
            plural = name if name.endswith("_gram") else f"{name}s"
            yield c.Assign(c.name(plural), c.name(f'memory["{name}"]'))

    def _entry(self, name: str) -> None:
        if name in self.inlined:
            return
        if name in self.numbers:
            self.steps.body.append(c.Assign(c.name(safe(name)), self.number(self.locals[name])))
        elif name in self.locals:
            self.steps.taken.discard(name)
            value = self.steps.value(self.sum(self.locals[name]), safe(name))
            if value.name in {"weights", *(safe(m.name) for m in self.algorithm.memories)}:  # it may change
                value = self.steps.let(safe(name), self.steps.call("clone", value.name))
            self.terms.lists = {**self.terms.lists, f"local {name}": value.name}
        elif name == "weight":
            self.steps.assign("weights", self.sum(self.algorithm.weight))
        else:
            self._write(self.algorithm.memory(name))

    def sum(self, formula: Formula) -> Sum:
        """A formula as a sum, with what stands still for a period taken from where it is kept."""
        return self._kept(self.terms.sum(formula))

    def _kept(self, made: Sum) -> Sum:
        terms = tuple(
            replace(t, above=tuple(map(self._kept_atom, t.above)), below=tuple(map(self._kept_atom, t.below)))
            for t in made.terms
        )
        return Sum(terms, made.called)

    def _kept_atom(self, atom: Atom) -> Atom:
        match atom:
            case Sum():
                return self._kept(atom)
            case Applied(function="gram", tensors=(one,)) if one.atom in (Held("inputs"), Held("errors")):
                return Held("input_gram" if one.atom == Held("inputs") else "error_gram")
            case Applied() if self._stands_still(atom):
                if atom not in self.cached:
                    (first,) = set(atom.names())
                    self.cached[atom] = f"{first}_{atom.function}"
                return Held(self.cached[atom])
            case Applied():
                return replace(atom, tensors=tuple(map(self._kept, atom.tensors)))
            case _:
                return atom

    def _stands_still(self, atom: Applied) -> bool:
        """Whether it is work for a matrix that is what one slow memory holds, and nothing else."""
        slow = {Held(safe(m.name)) for m in self.algorithm.memories if m.update is not None}
        numbers = [node for one in atom.numbers for node in one.walk()]
        steady = not any(isinstance(node, Signal | Local) for node in numbers)
        return atom.function == "orthogonal" and steady and atom.tensors[0].atom in slow

    # ------------------------------------------------------------------- memories

    def _write(self, memory: RuleMemory) -> None:
        if memory.update is None:
            self._written(memory, memory.value)
            return
        if memory.key is not None:
            raise ValueError(f"memory `{memory.name}` has a key and a clock of its own")
        block = f"{safe(memory.name)}_period"
        for term in self.sum(memory.value).terms:
            self.steps.add(block, term)
        outer, self.steps.body = self.steps.body, []
        self.steps.body.append(c.Comment("Read from the next update on."))
        period = self.number(memory.update)
        gathered = Recall(kind="tensor", memory=f"{memory.name}_period", axes=memory.axes)
        self.terms.lists = {**self.terms.lists, f"memory {gathered.memory}": block}
        value: Formula = gathered
        if memory.reduce == "mean":
            value = Operation(kind="tensor", op="/", left=gathered, right=memory.update, axes=memory.axes)
        self._written(memory, value)
        for atom, name in self.cached.items():
            if safe(memory.name) in atom.names():
                self.helpers.add("orthogonal")
                numbers = tuple(self.number(one) for one in atom.numbers)
                turned = c.Invoke("orthogonal", (c.name(safe(memory.name)), *numbers))
                self.steps.do("copy_", name, turned)
        self.steps.do("zero_", block)
        inner, self.steps.body = self.steps.body, outer
        due = f"step % {flat(period)} == 0" if isinstance(period, c.Atom) else f"step % ({flat(period)}) == 0"
        self.steps.body.append(c.Nested(f"if {due}", tuple(inner)))

    def _written(self, memory: RuleMemory, value: Formula) -> None:
        """One write of a memory, as the head of `nldsl.resolve.algorithm` says."""
        if memory.map.kind == "vector":
            self.steps.assign(safe(memory.name), self._vector(memory, value))
            return
        assert memory.key is not None
        key = self.steps.value(self.sum(memory.key))
        made = self.sum(value)
        term = made.terms[0]
        if memory.map.kind == "matrix" and len(made.terms) == 1 and _is_identity(term):
            given: c.Code = self.number(term.number)
        else:
            given = c.name(self.steps.value(made, "value").name)
        arguments = [c.name(safe(memory.name)), c.name(key.name), given]
        numbers = [self.number(memory.rate)]
        if memory.retain is not None:
            numbers.append(self.number(memory.retain))
        named: list[tuple[str, c.Code]] = []
        if memory.objective == "l2" and memory.anchor == "current" and not memory.implicit:
            named.append(("current", c.name("True")))
        if memory.map.kind == "mlp":
            function = "descend"
            if memory.objective == "dot":
                named.append(("dot", c.name("True")))
            named += net_form(memory)
        else:
            function = "associate" if memory.objective == "dot" else "regress"
            function = "regress_implicit" if memory.implicit else function
        self.helpers.add(function)
        call = c.Invoke(function, (*arguments, *numbers), tuple(named))
        self.steps.body.append(c.Do(call))

    def _vector(self, memory: RuleMemory, value: Formula) -> Sum:
        """What a memory of numbers becomes."""
        own = Held(safe(memory.name))
        retain: Formula = memory.retain if memory.retain is not None else n.ONE
        rate = memory.rate
        made = self.sum(value)
        if memory.key is None:
            kept = n.times(retain, n.minus(n.ONE, rate)) if memory.objective == "l2" else retain
            return Sum((Term(kept, (own,)), *self._scaled(made, rate)))
        key = self.sum(memory.key)
        rate_key = product(made, key)
        if memory.objective == "dot":
            return Sum((Term(retain, (own,)), *self._scaled(rate_key, rate)))
        if memory.implicit:
            square = product(key, key)
            below = Sum((Term(n.ONE), *self._scaled(square, rate)))
            above = Sum((Term(retain, (own,)), *self._scaled(rate_key, rate)))
            return Sum((Term(n.ONE, (above,), (below,)),))
        erased = n.negative(rate if memory.anchor == "current" else n.times(rate, retain))
        square = product(product(of_atom(own), key), key)
        return Sum((Term(retain, (own,)), *self._scaled(square, erased), *self._scaled(rate_key, rate)))

    def _scaled(self, made: Sum, factor: Formula) -> tuple[Term, ...]:
        if not plain_number(factor, self.inlined):
            return product(self.sum(factor), made).terms
        return tuple(replace(t, number=n.times(factor, t.number)) for t in made.terms)

    def map_call(self, kind: str, memory: str, queries: str) -> c.Code:
        """What a memory answers to queries, or its slope there."""
        one = self.algorithm.memory(memory)
        if one.map.kind == "vector":
            return c.call("torch._foreach_mul", safe(memory), queries)
        function = {"ask": "answers", "slope": "slopes"}[kind]
        self.helpers.add(function)
        nets = safe(memory) if one.map.kind == "mlp" else f"[(one,) for one in {safe(memory)}]"
        return c.Invoke(function, (c.name(nets), c.name(queries)), tuple(net_form(one)))


def sizes(weight: str, shown: str) -> c.Step:
    """`rows, columns = ...`, what is not used in `shown` left out."""
    names = (name if re.search(rf"\b{name}\b", shown) else "_" for name in ("rows", "columns"))
    return c.Assign(c.name(", ".join(names)), c.name(f"{weight}.shape[-2:]"))


def _is_identity(term: Term) -> bool:
    return (
        len(term.above) == 1
        and not term.below
        and isinstance(term.above[0], Applied)
        and term.above[0].function == "identity"
    )


def method(
    name: str, parameters: tuple[str, ...], returns: str, body: Sequence[c.Step], decorator: str
) -> Iterator[c.Step]:
    """A decorated method, and the line before it."""
    yield c.Blank()
    yield c.Function(name, parameters, returns, tuple(body), decorators=(decorator,))
