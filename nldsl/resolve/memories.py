"""Instances of memories: their fields, the algebra of their core, and chains of shared weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.levels.graph import Clock
from nldsl.resolve.calls import Bound, function_name
from nldsl.resolve.expanded import (
    Apply,
    ChainInstance,
    ChainLevel,
    Constant,
    Core,
    Flow,
    Map,
    MemoryInstance,
    Num,
    Shape,
    Variable,
)
from nldsl.resolve.findings import Findings, Unresolved
from nldsl.resolve.flows import Context, Flows, merged, split
from nldsl.resolve.scope import Amount, Word

FLOWS = ("key", "value", "query", "rate", "retain", "momentum", "erase", "out")
GATES = ("rate", "retain", "momentum")
FIELDS = (
    *FLOWS,
    "map",
    "objective",
    "target",
    "rule",
    "constrain",
    "normalise",
    "update",
    "anchor",
    "window",
    "read",
    "start",
    "reset",
    "scope",
    "gradient",
    "plastic",
    "heads",
)
OBJECTIVES = ("dot", "l2", "lp", "huber", "oja", "task")
RULES = ("gd", "dgd", "muon", "momentum", "softmax")
READINGS = {"gd": ("implicit",), "dgd": ("explicit", "first_layer"), "muon": (), "softmax": ()}


Instantiate = Callable[[e.Expr, doc.Memory | doc.Block, object, Flow, Context], Flow]


class Memories:
    """Builds memory and chain instances."""

    def __init__(self, flows: Flows, instantiate: Instantiate) -> None:
        self.flows, self.instantiate = flows, instantiate

    def build(
        self, call: e.Expr, declaration: doc.Memory, bound: Bound, width: Num, path: str
    ) -> MemoryInstance | ChainInstance:
        """The instance of a memory declaration whose input has `width` features."""
        one = _Memory(self, call, declaration, bound, width, path)
        return one.chain() if one.objective == "task" else one.memory()


class _Memory:
    """One memory on its way to an instance."""

    def __init__(
        self, owner: Memories, call: e.Expr, declaration: doc.Memory, bound: Bound, width: Num, path: str
    ) -> None:
        self.owner, self.call, self.declaration, self.path, self.width = owner, call, declaration, path, width
        self.scope, self.arguments = bound.scope, bound.arguments
        self.findings: Findings = bound.scope.findings
        self.fields = declaration.fields
        self.made: dict[str, Flow] = {}
        self.making: list[str] = []
        self.used: set[str] = set()
        self.broken: set[str] = set()
        self.objective, self.objective_parameter = self._objective()

    # ------------------------------------------------------------------ small helpers

    def _field(self, name: str) -> e.Expr | None:
        value = self.fields.get(name)
        if isinstance(value, e.Name) and isinstance(self.scope.values.get(value.text), e.Expr):
            return self.scope.values[value.text]  # type: ignore[return-value]
        return value

    def _span(self, name: str) -> Span | None:
        value = self.fields.get(name)
        return value.span if value is not None else self.call.span

    def _word(self, name: str, what: str, choices: tuple[str, ...], default: str) -> str:
        value = self._field(name)
        return default if value is None else self.scope.word(value, what, choices)

    def _flag(self, name: str, default: bool) -> bool:
        return self._word(
            name, f"`{name}`", ("true", "false", "yes", "no"), "true" if default else "false"
        ) in ("true", "yes")

    def _called(self, name: str, choices: tuple[str, ...], default: str) -> tuple[str, e.Call | None]:
        """`gd`, or `momentum(0.9)`: the word and its call, through parameters."""
        value = self._field(name)
        if value is None:
            return default, None
        found = self.scope.value(value)
        if isinstance(found, e.Expr):
            value = found
        word = found.text if isinstance(found, Word) else function_name(value)
        if word not in choices:
            near = nearest(word or "", list(choices))
            hint = f"maybe `{near[0]}`" if near else f"use one of {', '.join(f'`{c}`' for c in choices)}"
            raise self.findings.stop(
                "NL0203", f"`{name}` cannot be `{print_expr(value)}`", value.span, "not a choice", help=hint
            )
        return word, value if isinstance(value, e.Call) else None

    def _objective(self) -> tuple[str, float | None]:
        word, call = self._called("objective", OBJECTIVES, "l2")
        takes = {"lp": "p", "huber": "delta"}
        if word not in takes:
            return word, None
        if call is None or len(call.arguments) != 1:
            raise self.findings.stop(
                "NL0201",
                f"the objective `{word}` needs `{takes[word]}`",
                self._span("objective"),
                help=f"write `{word}(3)`",
            )
        return word, float(self.scope.number(call.arguments[0].value))

    # ------------------------------------------------------------------ chains of shared weights

    def chain(self) -> ChainInstance:
        """A memory that learns from the model's own loss (`objective = task`)."""
        declaration = self.declaration
        chain = declaration.chain
        allowed = ("objective", "scope", "plastic", *(("map", "update", "reduce") if chain is None else ()))
        for name, value in self.fields.items():
            if name not in allowed and name in FIELDS:
                self.findings.add(
                    "NL0507",
                    f"`{name}` means nothing to a memory that learns from the task",
                    value.span,
                    "not used",
                    others=((self._span("objective"), "the objective"),),
                    help=f"remove `{name}`, or give the memory an objective of its own such as `l2`",
                )
            elif name not in allowed:
                self._unknown_field(name)
        if self._word("scope", "the scope", ("shared", "sequence"), "shared") == "sequence":
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for task weights of each sequence",
                self._span("scope"),
                "per sequence",
                help="leave `scope` out: the weights are then shared by all sequences",
            )
        if self._flag("plastic", False):
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for shared weights that go on learning at test time",
                self._span("plastic"),
                "plastic",
                help="leave `plastic` out: shared weights stand still after training",
            )
        if chain is None:
            fields = {k: v for k, v in self.fields.items() if k in ("map", "update", "reduce")}
            levels = [self._level(declaration.name, fields, declaration.where(), self.path)]
            return ChainInstance(
                declaration.name,
                self.path,
                self.arguments,
                self.width,
                "sequential",
                tuple(levels),
                Shape("flat", self.width),
                self.call.span,
                declaration.where(),
            )
        if chain.variant != "sequential":
            near = nearest(chain.variant, ["sequential"])
            known = chain.variant in ("nested", "independent")
            code, text = (
                ("NL0701", f"no code can be made yet for a `{chain.variant}` chain")
                if known
                else ("NL0203", f"a chain cannot be `{chain.variant}`")
            )
            raise self.findings.stop(
                code,
                text,
                chain.where(),
                "the kind of chain",
                help=f"maybe `{near[0]}`" if near and not known else "use `chain sequential`",
            )
        levels = []
        failed = False
        for level in chain.levels:
            try:
                levels.append(
                    self._level(level.name, level.fields, level.where(), f"{self.path}.{level.name}")
                )
            except Unresolved:
                failed = True
        if failed:
            raise Unresolved(declaration.name)
        if not levels:
            raise self.findings.stop(
                "NL0211",
                f"the chain of `{declaration.name}` has no level",
                chain.where(),
                "an empty chain",
                help="write `level fast { map = mlp(4 * dim), update = every 1 step }`",
            )
        return ChainInstance(
            declaration.name,
            self.path,
            self.arguments,
            self.width,
            chain.variant,
            tuple(levels),
            Shape("flat", self.width),
            self.call.span,
            declaration.where(),
        )

    def _level(self, name: str, fields: dict[str, e.Expr], where: Span | None, path: str) -> ChainLevel:
        for field, value in fields.items():
            if field not in ("map", "update", "reduce"):
                near = nearest(field, ["map", "update", "reduce"])
                raise self.findings.stop(
                    "NL0214",
                    f"a level has no field `{field}`",
                    value.span,
                    "unknown field",
                    help=f"maybe `{near[0]}`" if near else "it has `map`, `update` and `reduce`",
                )
        if "map" not in fields:
            raise self.findings.stop(
                "NL0206",
                f"the level `{name}` has no `map`",
                where,
                "nothing to learn",
                help="write `map = mlp(4 * dim)`",
            )
        mapping = self.owner.flows.map(fields["map"], self.scope, self.width)
        if mapping.kind not in ("mlp", "swiglu", "matrix"):
            raise self.findings.stop(
                "NL0506",
                f"`{mapping.kind}` cannot learn from the task",
                fields["map"].span,
                "not a map from features to features",
                help="use `mlp(...)`, `swiglu(...)` or `matrix`",
            )
        clock = self.scope.clock(fields["update"]) if "update" in fields else Clock(1, "step")
        if clock.unit in ("sequence", "document"):
            raise self.findings.stop(
                "NL0303",
                f"the level `{name}` counts in {clock.unit}s",
                fields["update"].span,
                "this unit does not fit",
                help="a level that learns from the task counts steps or tokens",
            )
        reduce = (
            self.scope.word(fields["reduce"], "how gradients add up", ("mean", "sum"))
            if "reduce" in fields
            else "mean"
        )
        clock_span = fields["update"].span if "update" in fields else where
        return ChainLevel(name, path, mapping, clock, reduce, where, clock_span)

    # ------------------------------------------------------------------ memories inside the sequence

    def memory(self) -> MemoryInstance:
        """A memory with an objective of its own, written while the sequence is read."""
        if self.declaration.chain is not None:
            raise self.findings.stop(
                "NL0517",
                "a chain learns from the task, but the objective is another",
                self.declaration.chain.where(),
                "a chain",
                others=((self._span("objective"), f"the objective is `{self.objective}`"),),
                help="write `objective = task`",
            )
        self._only_what_compiles()
        heads = self._heads()
        self.context = Context(
            self.scope,
            self.path,
            self._lookup,
            self._names,
            self.owner.instantiate,
            heads=heads,
            adaptive_ok=True,
        )
        self.heads = heads
        head_width = self._head_width(heads)
        mapping = self._map(head_width)
        flows = self._flows(heads)
        key, value, query = flows["key"], flows["value"], flows["query"]
        if key.shape.width.value != query.shape.width.value:
            raise self.findings.stop(
                "NL0401",
                f"keys have {int(key.shape.width)} features in a head and queries {int(query.shape.width)}",
                query.span,
                "queries",
                others=((key.span, "keys"),),
                help="give both the same width",
            )
        erase = flows.get("erase")
        if erase is not None and erase.shape.width.value != key.shape.width.value:
            raise self.findings.stop(
                "NL0401",
                (
                    f"keys have {int(key.shape.width)} features in a head and `erase` has "
                    f"{int(erase.shape.width)}"
                ),
                erase.span,
                "what is forgotten along",
                others=((key.span, "keys"),),
                help="give both the same width",
            )
        if mapping.residual and key.shape.width.value != value.shape.width.value:
            raise self.findings.stop(
                "NL0401",
                (
                    f"a residual map turns {int(key.shape.width)} features into as many, but values have "
                    f"{int(value.shape.width)}"
                ),
                value.span,
                "values",
                others=((mapping.span, "residual"),),
                help="leave `residual` out, or give keys and values one width",
            )
        core = self._core(mapping, flows)
        start, teacher = self._start()
        shape, flows = self._out(flows, heads, value.shape.width)
        self._unused()
        return MemoryInstance(
            self.declaration.name,
            self.path,
            self.arguments,
            self.width,
            heads,
            key.shape.width,
            value.shape.width,
            tuple((n, f) for n, f in self.made.items() if n not in FIELDS),
            flows,
            replace(core, start=start),
            shape,
            start,
            teacher,
            self._reset(),
            self._flag("plastic", True),
            {n: v.span for n, v in self.fields.items()},
            self.call.span,
            self.declaration.where(),
        )

    def _only_what_compiles(self) -> None:
        """Refuse what would change the meaning and that no code can be made for yet."""
        if self._word("scope", "the scope", ("shared", "sequence"), "sequence") == "shared":
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for a memory with an objective of its own that all sequences share",
                self._span("scope"),
                "shared",
                help="leave `scope` out: each sequence then has weights of its own",
            )
        if not self._flag("plastic", True):
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for a memory that stands still at test time",
                self._span("plastic"),
                "not plastic",
                help="leave `plastic` out: a memory inside the sequence goes on learning",
            )

    def _heads(self) -> Num:
        if "heads" in self.fields:
            return self.scope.integer(self.fields["heads"], "the number of heads")
        given = self.scope.values.get("heads")
        if isinstance(given, Num):
            self.scope.counted(given, "the number of heads", self.call.span)
            return given
        return Num(1, e.Number(1))

    def _head_width(self, heads: Num) -> Num:
        x = Variable(Shape("flat", self.width), "x", span=heads.span or self.call.span)
        return split(x, heads, self.scope, f"the input of `{self.declaration.name}`").shape.width

    def _map(self, head_width: Num) -> Map:
        if "map" not in self.fields:
            return Map("matrix")
        return self.owner.flows.map(self.fields["map"], self.scope, head_width)

    # names that pipelines of this memory can read

    def _names(self) -> list[str]:
        return ["x", *(n for n in self.fields if n in FLOWS[:7] or n not in FIELDS)]

    def _lookup(self, name: str) -> Flow | None:
        if name == "x":
            return Variable(Shape("flat", self.width), "x")
        if name == "head":
            return Variable(Shape("per head", Num(1), self.heads), "head")
        if name in self.made:
            self.used.add(name)
            return Variable(self.made[name].shape, name)
        if name in self.broken:
            raise Unresolved(name)
        if name in self.fields and (name in FLOWS[:3] or name not in FIELDS):
            self.used.add(name)
            return Variable(self._make(name).shape, name)
        return None

    def _make(self, name: str) -> Flow:
        if name in self.made:
            return self.made[name]
        if name in self.making:
            ring = " -> ".join([*self.making[self.making.index(name) :], name])
            raise self.findings.stop(
                "NL0212",
                f"`{name}` is computed from itself",
                self._span(name),
                "closes the cycle",
                notes=(ring,),
                help="break the cycle: a pipeline may read only what is computed before it",
            )
        self.making.append(name)
        try:
            flow = self.owner.flows.build(self.fields[name], self.context.at(name))
            if name in (*FLOWS[:3], "erase"):
                flow = split(flow, self.heads, self.scope, f"the {name}")
        except Unresolved:
            self.broken.add(name)
            raise
        finally:
            self.making.pop()
        self.made[name] = flow
        return flow

    def _flows(self, heads: Num) -> dict[str, Flow]:
        flows: dict[str, Flow] = {}
        failed = False
        for name in ("key", "value", "query"):
            if name not in self.fields:
                self.findings.add(
                    "NL0206",
                    f"the memory `{self.declaration.name}` has no `{name}`",
                    self.declaration.where(),
                    "a field is missing",
                    help=f"write for instance `{name} = x |> linear`",
                )
                failed = True
        for name in [n for n in self.fields if n not in FIELDS or n in FLOWS[:7]]:
            try:
                flows[name] = self._gate(name, heads) if name in GATES else self._make(name)
            except Unresolved:
                failed = True
        if failed:
            raise Unresolved(self.declaration.name)
        rule, call = self._called("rule", RULES, "softmax" if self._map_word() == "cache" else "gd")
        if rule == "momentum":
            if call is None or len(call.arguments) != 1:
                raise self.findings.stop(
                    "NL0201",
                    "the rule `momentum` needs a number",
                    self._span("rule"),
                    help="write `momentum(0.9)`",
                )
            if "momentum" in flows:
                raise self.findings.stop(
                    "NL0213",
                    "momentum is given twice",
                    self._span("rule"),
                    "as a rule",
                    others=((self._span("momentum"), "as a field"),),
                    help="keep one of the two",
                )
            number = self.scope.number(call.arguments[0].value)
            flows["momentum"] = Constant(Shape("scalar", Num(1)), number, span=call.span)
        return {n: flows[n] for n in FLOWS if n in flows}

    def _map_word(self) -> str:
        value = self.fields.get("map")
        return (function_name(value) or "") if value is not None else "matrix"

    def _gate(self, name: str, heads: Num) -> Flow:
        flow = self.owner.flows.build(self.fields[name], self.context.at(name))
        shape = flow.shape
        if shape.layout in ("scalar", "per head", "gate"):
            return flow
        if shape.layout == "flat" and shape.features == int(heads):
            return Apply(Shape("gate", Num(1), heads), "gate of heads", flow, {}, "", span=flow.span)
        key_width = self._make("key").shape.width
        if shape.features == int(heads) * int(key_width):
            return split(flow, heads, self.scope, f"`{name}`")
        raise self.findings.stop(
            "NL0407",
            f"`{name}` gives {shape.features} numbers for each token",
            flow.span,
            "does not fit",
            help=(
                f"end with `linear({int(heads)})` for one number a head, or "
                f"`linear({int(heads) * int(key_width)})` for one a key channel"
            ),
        )

    # ------------------------------------------------------------------ the algebra

    def _core(self, mapping: Map, flows: dict[str, Flow]) -> Core:
        rule = self._rule()
        update = self._update()
        anchor = self._anchor(update)
        boundary = update > 1
        read = self._word(
            "read", "what is read", ("after", "before", "boundary"), "boundary" if boundary else "after"
        )
        if boundary and read != "boundary":
            raise self.findings.stop(
                "NL0308",
                f"reads see what was written every {update} tokens, so they cannot be `{read}`",
                self._span("read"),
                "contradicts the clock",
                others=((self._span("update"), "the clock"),),
                help="leave `read` out, or use `anchor = every N tokens` with `update = every 1 token`",
            )
        gradient, tokens = self._gradient()
        return Core(
            mapping,
            self.objective,
            self.objective_parameter,
            *self._target(),
            rule,
            rate=self._gate_kind(flows.get("rate")),
            retain=self._gate_kind(flows.get("retain")),
            momentum=self._gate_kind(flows.get("momentum")),
            erase="erase" in flows,
            update=update,
            anchor=anchor,
            read=cast('Literal["after", "before", "boundary"]', read),
            partial=self._partial(),
            window=self._window(),
            normalise=self._word("normalise", "what reads are divided by", ("none", "sum"), "none") == "sum",
            constrain=self._constrain(),
            gradient=gradient,
            gradient_tokens=tokens,
        )

    def _target(self) -> tuple[Literal["value", "self"], bool]:
        """What is regressed to: `value`, `self` (the memory's own answer to the value), or `self |> unit`."""
        value = self._field("target")
        if isinstance(value, e.Pipe) and print_expr(value) == "self |> unit":
            return "self", True
        word = self._word("target", "the target", ("value", "self"), "value")
        return ("self" if word == "self" else "value"), False

    def _rule(self) -> str:
        word, call = self._called("rule", RULES, "softmax" if self._map_word() == "cache" else "gd")
        if word == "momentum":
            return "gd"
        if call is None or not call.arguments:
            return word
        return (
            f"{word}_{self.scope.word(call.arguments[0].value, f'the reading of `{word}`', READINGS[word])}"
        )

    def _gate_kind(self, flow: Flow | None) -> Literal["none", "head", "channel"]:
        if flow is None:
            return "none"
        return "channel" if flow.shape.layout == "heads" else "head"

    def _update(self) -> int:
        value = self._field("update")
        if value is None:
            return 1
        clock = self.scope.clock(value)
        if clock.unit == "never":
            raise self.findings.stop(
                "NL0309",
                "a memory inside the sequence that never updates is no memory",
                value.span,
                "never written",
                help="write its map as a plain stage, such as `mlp(...)`, instead",
            )
        if clock.unit != "token":
            raise self.findings.stop(
                "NL0303",
                f"a memory inside the sequence is counted in {clock.unit}s",
                value.span,
                "this unit does not fit",
                help="count it in tokens, or learn from the task (`objective = task`) to count steps",
            )
        if clock.offset:
            raise self.findings.stop(
                "NL0701",
                "no code can be made yet for an offset inside the sequence",
                value.span,
                "an offset",
                help="leave the offset out",
            )
        return clock.period

    def _partial(self) -> str:
        value = self._field("update")
        return self.scope.clock(value).partial if value is not None else "drop"

    def _anchor(self, update: int) -> str | int:
        value = self._field("anchor")
        if value is None:
            return update if update > 1 else "retained"
        found = self.scope.value(value)
        if isinstance(found, Word):
            return self.scope.word(value, "the anchor", ("retained", "current"))
        if isinstance(value, e.Phrase):
            clock = self.scope.clock(value)
            if clock.unit != "token":
                raise self.findings.stop(
                    "NL0303",
                    f"an anchor is counted in {clock.unit}s",
                    value.span,
                    "this unit does not fit",
                    help="count it in tokens",
                )
            return "retained" if clock.period == 1 else clock.period
        raise self.findings.stop(
            "NL0203",
            f"the anchor cannot be `{print_expr(value)}`",
            value.span,
            "not a choice",
            help="use `retained`, `current` or `every N tokens`",
        )

    def _window(self) -> int | None:
        value = self._field("window")
        if value is None:
            return None
        number, _ = self.scope.amount(value, ("token",), "a window")
        return int(number)

    def _constrain(self) -> tuple[tuple[str, float | None, int], ...]:
        value = self._field("constrain")
        if value is None:
            return ()
        phrase = value.words if isinstance(value, e.Phrase) else (value,)
        name = function_name(phrase[0])
        if name not in ("lq", "softmax", "norm"):
            raise self.findings.stop(
                "NL0203",
                f"weights cannot be constrained by `{print_expr(value)}`",
                value.span,
                "not a choice",
                help="use `lq(q)`, `softmax` or `norm`, with `every N tokens` if not after each write",
            )
        number = (
            float(self.scope.number(phrase[0].arguments[0].value))
            if isinstance(phrase[0], e.Call) and phrase[0].arguments
            else None
        )
        every = 1
        if len(phrase) > 1:
            every = self.scope.clock(e.Phrase(phrase[1:], span=value.span)).period
        return ((name, number, every),)

    def _gradient(self) -> tuple[str, int | None]:
        value = self._field("gradient")
        if value is None:
            return "through", None
        if isinstance(value, e.Phrase) and value.head == "through" and len(value.words) == 2:
            number, _ = self.scope.amount(value.words[1], ("token",), "how far gradients flow")
            return "through", int(number)
        return self.scope.word(
            value, "how the outer gradient flows", ("through", "first_order", "stop")
        ), None

    def _start(self) -> tuple[str, str | None]:
        value = self._field("start")
        if value is None:
            return ("zeros" if self._map_word() in ("matrix", "vector", "cache", "") else "learned"), None
        if isinstance(value, e.Phrase) and value.head == "learned" and len(value.words) == 3:
            return "learned", print_expr(value.words[2])
        if isinstance(value, e.Phrase | e.Call):
            raise self.findings.stop(
                "NL0701",
                f"no code can be made yet for `start = {print_expr(value)}`",
                value.span,
                "this start",
                help="use `zeros` or `learned`",
            )
        return self.scope.word(value, "a start", ("zeros", "learned")), None

    def _reset(self) -> str:
        value = self._field("reset")
        if value is None or print_expr(value) == "every sequence":
            return "every sequence"
        raise self.findings.stop(
            "NL0701",
            f"no code can be made yet for `reset = {print_expr(value)}`",
            value.span,
            "this reset",
            help="leave it out: the memory returns to its start with every sequence",
        )

    # ------------------------------------------------------------------ what comes out

    def _out(self, flows: dict[str, Flow], heads: Num, value_width: Num) -> tuple[Shape, dict[str, Flow]]:
        read = Variable(Shape("heads", value_width, heads), "read")
        if "out" not in self.fields:
            return merged(read).shape, flows
        inner = self._lookup

        def lookup(name: str) -> Flow | None:
            return read if name == "read" else inner(name)

        context = Context(
            self.scope,
            f"{self.path}.out",
            lookup,
            lambda: ["read", *self._names()],
            self.owner.instantiate,
            heads=heads,
        )
        flow = merged(self.owner.flows.build(self.fields["out"], context))
        if flow.shape.layout != "flat":
            raise self.findings.stop(
                "NL0404", f"`out` is {flow.shape}", flow.span, "features of each token are wanted here"
            )
        return flow.shape, {**flows, "out": flow}

    def _unused(self) -> None:
        for name in self.fields:
            if name not in FIELDS and name not in self.used:
                self._unknown_field(name)

    def _unknown_field(self, name: str) -> None:
        span = self.declaration.field_spans.get(name) or self.fields[name].span
        near = nearest(name, list(FIELDS))
        if near:
            self.findings.add(
                "NL0214",
                f"a memory has no field `{name}`",
                span,
                "read by nothing",
                help=f"maybe `{near[0]}`",
            )
            return
        self.findings.add(
            "NL0215",
            f"nothing reads `{name}`",
            span,
            "a local pipeline",
            severity="warning",
            help="remove it, or use it in a field such as `key`",
        )


def constant(flow: Flow) -> float | None:
    """The number a flow is, if it is one."""
    return float(flow.number) if isinstance(flow, Constant) else None


__all__ = ["FIELDS", "FLOWS", "GATES", "Amount", "Memories", "constant"]
