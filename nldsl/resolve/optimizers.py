"""`optimizer` declarations: with a call's arguments bound, the algorithm of a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.algorithm import (
    FOR_MATRICES,
    SIGNALS,
    WEIGHT,
    Algorithm,
    Formula,
    Function,
    Option,
    RuleMemory,
    Signal,
    constant,
)
from nldsl.resolve.calls import bind, function_name
from nldsl.resolve.choices import chosen_fields
from nldsl.resolve.fields import RULES
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.formulas import Formulas, Held, described
from nldsl.resolve.modules import Module
from nldsl.resolve.rule_arguments import bound, late, matched, with_rate
from nldsl.resolve.rule_memories import MemoryFields
from nldsl.resolve.rule_order import folded, ordered, pruned
from nldsl.resolve.scope import Amount, Num, Scope, Value, Word

T = TypeVar("T")


def algorithm(
    call: e.Expr, declaration: doc.Optimizer, module: Module, caller: Scope, rate: float
) -> Algorithm:
    """The rule that a call of an `optimizer` makes; raises `Unresolved` after recording what is wrong.

    `rate` is the peak of the call's rate, which may be a schedule; formulas read it as the option `rate`.
    """
    return _Optimizer(call, declaration, module, caller, rate, ()).build()


def check_alone(declaration: doc.Optimizer, module: Module, findings: Findings) -> None:
    """Look at a declaration that nothing calls, with its defaults; what has none is 0.5."""
    given = [p.name for p in declaration.parameters if p.default is None]
    arguments = tuple(e.Argument(e.Number(0.01 if name == "rate" else 0.5), name) for name in given)
    call = e.Call(e.Name((declaration.name,), span=declaration.where()), arguments, span=declaration.where())
    try:
        algorithm(call, declaration, module, Scope(module, findings), 0.01)
    except Unresolved:
        return


def rules_named(declaration: object) -> set[str]:
    """The learning rules that a run or a rule names; the library's are known without being imported."""
    given: list[e.Expr | None] = []
    if isinstance(declaration, doc.Train):
        given = [level.fields.get("rule") for level in declaration.levels]
    elif isinstance(declaration, doc.Memory):
        chain = declaration.chain.levels if declaration.chain is not None else []
        inside = [one.fields.get("rule") for one in (declaration, *chain)]
        given = [one for one in inside if one is not None and function_name(one) not in RULES]
    elif isinstance(declaration, doc.Optimizer):
        given = [declaration.otherwise]
    return {name for value in given if value is not None and (name := function_name(value)) is not None}


def known_rules(module: Module) -> list[str]:
    """The rules that a file can name: its own and imported ones, then those of the library."""
    own = [n for n in module.names() if isinstance((module.lookup(n) or (None,))[0], doc.Optimizer)]
    return list(dict.fromkeys((*own, *module.rules.names)))


def no_such_rule(name: str, span: Span | None, module: Module, findings: Findings) -> Unresolved:
    """Record that there is no rule called `name`."""
    rules = known_rules(module)
    near = nearest(name, rules)
    hint = f"maybe `{near[0]}`" if near else f"use one of {', '.join(f'`{r}`' for r in rules)}"
    return findings.stop("NL0501", f"there is no rule called `{name}`", span, "unknown rule", help=hint)


class _Optimizer:
    """One declaration on its way to an algorithm; `stack` holds the declarations whose `otherwise` it is."""

    def __init__(
        self,
        call: e.Expr,
        declaration: doc.Optimizer,
        module: Module,
        caller: Scope,
        rate: float,
        stack: tuple[doc.Optimizer, ...],
    ) -> None:
        self.declaration, self.module, self.findings = declaration, module, caller.findings
        self.rate, self.stack = rate, (*stack, declaration)
        self._names_apart()
        self.late = late(declaration, call)
        early = [p for p in declaration.parameters if p.name not in self.late]
        self.scope = bind(with_rate(call, declaration, rate), declaration.name, early, module, caller).scope
        self.scope.values = {p.name: bound(p, self.scope.values[p.name], self.findings) for p in early}
        self.fields = chosen_fields(declaration.fields, self.scope)
        self.memories = {m.name: m for m in declaration.memories}
        self.broken: set[str] = set()
        self.making: list[str] = []
        self.made: dict[str, Formula] = {}
        self.remembered: dict[str, RuleMemory] = {}
        self.assumed: set[str] = set()
        self.formulas = Formulas(
            self.scope,
            local=self._local,
            held=self._held,
            names=lambda: [*self._locals(), *self.memories],
        )

    # ------------------------------------------------------------------ parameters

    def _names_apart(self) -> None:
        """Refuse names that mean two things, and a rule without a rate."""
        declaration, findings = self.declaration, self.findings
        seen: dict[str, tuple[str, Span | None]] = {n: (f"is {s[0]}", None) for n, s in SIGNALS.items()}
        del seen["weight"]
        named = [(p.name, "is a parameter", p.where()) for p in declaration.parameters]
        named += [(m.name, "is a memory", m.where()) for m in declaration.memories]
        spans = declaration.field_spans
        named += [(n, "is a value", spans.get(n) or v.span) for n, v in declaration.fields.items()]
        if any(name == "weight" and what != "is a value" for name, what, _ in named):
            seen["weight"] = ("is the weights", None)
        failed = False
        for name, what, span in named:
            if name in seen:
                before, place = seen[name]
                findings.add(
                    "NL0544",
                    f"`{name}` {what}, and it {before} already",
                    span,
                    "a second meaning",
                    others=((place, "the first"),),
                    help="give it a name of its own",
                )
                failed = True
            else:
                seen[name] = (what, span)
        if not any(p.name == "rate" for p in declaration.parameters):
            findings.add(
                "NL0545",
                f"the rule `{declaration.name}` has no parameter `rate`",
                declaration.where(),
                "no rate",
                help=f"write `optimizer {declaration.name}(rate, ...)`: schedules and runs change it",
            )
            failed = True
        if failed:
            raise Unresolved(declaration.name)

    def _options(self) -> dict[str, float | int]:
        found: dict[str, float | int] = {}
        for name, value in self.scope.values.items():
            if isinstance(value, Num) and name != "rate":
                found[name] = value.value
            elif isinstance(value, Amount):
                found[name] = value.number.value
        return found

    # ------------------------------------------------------------------ names

    def _locals(self) -> list[str]:
        return [*self.late, *(name for name in self.fields if name != "weight")]

    def _local(self, name: str, span: Span | None) -> Formula:
        """The formula of a value that has a name; raises `KeyError` where there is none."""
        if name not in self.made:
            given = self.late.get(name) or (self.fields.get(name) if name != "weight" else None)
            if given is None:
                raise KeyError(name)
            self.made[name] = self._once(name, span, lambda: self.formulas.read(given))
        return self.made[name]

    def _held(self, name: str, span: Span | None) -> Held:
        """Whether a memory only answers questions, and the axes of what it holds; or `KeyError`."""
        given = self.memories.get(name)
        if given is None:
            raise KeyError(name)
        plain = "map" not in given.fields or function_name(given.fields["map"]) == "vector"
        if name in self.making and plain and name == self.making[-1]:
            self.assumed.add(name)
            return False, WEIGHT
        one = self._memory(given, span)
        return one.map.kind == "mlp", one.axes

    def _once(self, name: str, span: Span | None, make: Callable[[], T]) -> T:
        """What `make` gives, unless it is being made already: then its names form a cycle."""
        if name in self.broken:
            raise Unresolved(name)
        if name in self.making:
            ring = [*self.making[self.making.index(name) :], name]
            raise self._cycle(ring, span)
        self.making.append(name)
        try:
            return make()
        except Unresolved:
            self.broken.add(name)
            raise
        finally:
            self.making.pop()

    def _cycle(self, ring: list[str], span: Span | None, help: str = "") -> Unresolved:
        rules = "rules that `otherwise` names" if help else "values of a rule"
        return self.findings.stop(
            "NL0546",
            f"{rules} depend on each other in a circle",
            span,
            "closes the circle",
            notes=(" -> ".join(ring),),
            help=help or "a memory with `read = before` gives what it held before the update",
        )

    # ------------------------------------------------------------------ memories and weights

    def _memory(self, given: doc.Memory, span: Span | None) -> RuleMemory:
        if given.name not in self.remembered:
            made = self._once(
                given.name, span, lambda: MemoryFields(given, self.scope, self.formulas).build()
            )
            if given.name in self.assumed and made.axes != WEIGHT:
                raise self.findings.stop(
                    "NL0542",
                    f"`{given.name}` reads itself, and its value is {described(made.value)}",
                    made.value.span,
                    "the value",
                    help="a memory that reads itself holds one number for each weight",
                )
            self.remembered[given.name] = made
        return self.remembered[given.name]

    def _weight(self) -> Formula:
        given, declaration = self.fields.get("weight"), self.declaration
        if given is None:
            raise self.findings.stop(
                "NL0545",
                f"the rule `{declaration.name}` does not say what becomes of the weights",
                declaration.where(),
                "no `weight = ...`",
                help="write for instance `weight = weight - rate * grad`",
            )
        made = self.formulas.read(given)
        if made.kind != "tensor" or made.axes != WEIGHT:
            raise self.findings.stop(
                "NL0542",
                f"the weights cannot become {described(made)}",
                given.span,
                "the new weights",
                help="give a tensor of their own shape, such as `weight - rate * grad`",
            )
        return made

    def _everything(self) -> Formula:
        """Read every name, so that all that is wrong is found; gives the weights."""
        weight: Formula | None = None
        failed = False
        every: list[Callable[[], object]] = [
            *(lambda given=m: self._memory(given, given.where()) for m in self.memories.values()),
            *(lambda name=n: self._local(name, None) for n in self._locals()),
        ]
        for make in every:
            try:
                make()
            except Unresolved:
                failed = True
        weight = self._weight()
        if failed:
            raise Unresolved(self.declaration.name)
        return weight

    def build(self) -> Algorithm:
        """The algorithm; see `algorithm`."""
        weight = self._everything()
        self._unread()
        options = self._options()
        made = Algorithm(
            self.declaration.name,
            options,
            tuple(self.remembered[name] for name in self.memories),
            tuple((name, self.made[name]) for name in self._locals()),
            weight,
            words={n: v.text for n, v in self.scope.values.items() if isinstance(v, Word)},
            declared=self.declaration.where(),
        )
        self._rounds(made)
        made = pruned(folded(made))
        order = ordered(made, self._places())
        if isinstance(order, list):
            raise self._cycle(order, self._place_of(order[0]))
        made = replace(made, order=order, matrices=_for_matrices(made))
        return self._otherwise(made)

    def _places(self) -> dict[str, int]:
        """Where each name stands in the text, so that what is free to stand anywhere stands as written."""
        names = [*self._locals(), *self.memories, "weight"]
        spans = {name: self._place_of(name) for name in names}
        return {name: span.start if (span := spans[name]) is not None else i for i, name in enumerate(names)}

    def _place_of(self, name: str) -> Span | None:
        if name in self.memories:
            return self.memories[name].where()
        given = self.fields.get(name)
        return self.declaration.field_spans.get(name) or (given.span if given is not None else None)

    def _unread(self) -> None:
        """Warn about memories and values that no formula mentions, whatever words are chosen."""
        declaration = self.declaration
        mentioned = {"weight"}
        for owner, given in [
            *((n, v) for n, v in declaration.fields.items()),
            *((m.name, v) for m in declaration.memories for v in m.fields.values()),
            *(("", p.default) for p in declaration.parameters if p.default is not None),
            *((("", declaration.otherwise),) if declaration.otherwise is not None else ()),
        ]:
            names = {n.text for n in given.walk() if isinstance(n, e.Name)}
            mentioned |= names - {owner}
        for name, memory in self.memories.items():
            if name not in mentioned:
                self.findings.add(
                    "NL0547",
                    f"nothing reads the memory `{name}`",
                    memory.where(),
                    "written, and never read",
                    severity="warning",
                    help="remove it, or read it in `weight`",
                )
        for name in self._locals():
            if name not in mentioned and name not in self.late:
                self.findings.add(
                    "NL0215",
                    f"nothing reads `{name}`",
                    self._place_of(name),
                    "a local value",
                    severity="warning",
                    help="remove it, or use it in `weight`",
                )

    def _rounds(self, made: Algorithm) -> None:
        """Newton-Schulz takes a whole number of rounds that no gradient changes."""
        for node in (n for f in made.formulas() for n in f.walk()):
            if isinstance(node, Function) and node.name == "orthogonal":
                rounds = constant(node.arguments[1], made.options)
                if rounds is None or rounds < 1 or rounds != int(rounds):
                    raise self.findings.stop(
                        "NL0205",
                        f"Newton-Schulz takes {rounds:g} rounds"
                        if rounds is not None
                        else "the rounds of Newton-Schulz change from update to update",
                        self._given_at(node.arguments[1]),
                        "needs a whole number of at least 1",
                    )

    def _given_at(self, formula: Formula) -> Span | None:
        """Where the value of an option was given; else where the formula stands."""
        value = self.scope.values.get(formula.name) if isinstance(formula, Option) else None
        return (value.span if isinstance(value, Num) else None) or formula.span

    # ------------------------------------------------------------------ what is no matrix

    def _otherwise(self, made: Algorithm) -> Algorithm:
        given = chosen_fields(
            {"otherwise": self.declaration.otherwise} if self.declaration.otherwise is not None else {},
            self.scope,
        ).get("otherwise")
        if given is None:
            return made
        name = function_name(given)
        found = self.module.rule(name) if name is not None else None
        if found is None:
            raise no_such_rule(name or print_expr(given), given.span, self.module, self.findings)
        inner, where = found
        if any(inner is one for one in self.stack):
            names = [one.name for one in self.stack]
            ring = [*names[names.index(inner.name) :], inner.name]
            raise self._cycle(ring, given.span, "write a rule for weights of any shape, such as `gd(rate)`")
        if not made.matrices:
            self.findings.add(
                "NL0548",
                f"`otherwise` is never needed: `{made.name}` works on weights of any shape",
                given.span,
                "for what is no matrix",
                severity="warning",
                help="remove it",
            )
        numbers = replace(self.scope, values=self.scope.values | self._late_numbers(made))
        rate = self._inner_rate(given, inner, made)
        inside = _Optimizer(given, inner, where, numbers, rate, self.stack).build()
        if inside.matrices:
            last = inside.otherwise
            raise self.findings.stop(
                "NL0552",
                f"`{inside.name}` is for matrices, and `otherwise` is for what is none",
                given.span,
                "never gets a matrix",
                help=f"write `otherwise {last.name if last is not None else 'adamw'}(rate)`",
            )
        return replace(made, otherwise=inside, otherwise_options=self._given(given, inner))

    def _given(self, call: e.Expr, inner: doc.Optimizer) -> dict[str, Formula]:
        """The numbers that `otherwise` gives, as formulas; words and periods are bound already."""
        given: dict[str, Formula] = {}
        for key, value in matched(call, inner):
            if isinstance(self.scope.value(value), Amount | Word):
                continue
            given[key] = self.formulas.number(value, f"`{key}`")
        return given

    def _inner_rate(self, call: e.Expr, inner: doc.Optimizer, made: Algorithm) -> float:
        given = dict(matched(call, inner)).get("rate")
        if given is None:
            raise self.findings.stop(
                "NL0201",
                f"`{inner.name}` needs `rate`",
                call.span,
                "not given here",
                help=f"write `otherwise {inner.name}(rate)`",
            )
        return constant(self.formulas.number(given, "`rate`"), made.options | {"rate": self.rate}) or 0.0

    def _late_numbers(self, made: Algorithm) -> dict[str, Value]:
        """Values of parameters that follow the rate, at its peak."""
        known = made.options | {"rate": self.rate}
        found: dict[str, Value] = {}
        for name in self.late:
            number = constant(self.made[name], known)
            known |= {name: number or 0.0}
            found[name] = Num(number or 0.0, e.Number(number or 0.0))
        return found


def _for_matrices(made: Algorithm) -> bool:
    """Whether a rule means something for matrices only."""
    if any(m.map.kind != "vector" for m in made.memories):
        return True
    for node in (n for f in made.formulas() for n in f.walk()):
        if isinstance(node, Function) and node.name in FOR_MATRICES:
            return True
        if isinstance(node, Signal) and node.name in ("rows", "columns", "tokens", "input", "error"):
            return True
    return False
