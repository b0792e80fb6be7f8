"""Instances of memories: their pipelines and their core."""

from __future__ import annotations

from dataclasses import replace

from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.algebra import Algebra
from nldsl.resolve.calls import Bound
from nldsl.resolve.chains import ChainFields
from nldsl.resolve.context import Context, Instantiate
from nldsl.resolve.expanded import (
    Apply,
    ChainInstance,
    Constant,
    Core,
    Flow,
    Map,
    MemoryInstance,
    Num,
    Shape,
    Variable,
)
from nldsl.resolve.fields import FIELDS, FLOWS, GATES, PAIRED, RULES, Called
from nldsl.resolve.findings import Unresolved
from nldsl.resolve.flows import Flows
from nldsl.resolve.layouts import merged, shared, split, times
from nldsl.resolve.maps import block_map, declared_block
from nldsl.resolve.objectives import Writing
from nldsl.resolve.still import without_writes

WRITTEN = ("key", "value", "erase", "erase_into", "rate")
"""Fields that have one value for each write of a token."""


class Memories:
    """Builds memory and chain instances."""

    def __init__(self, flows: Flows, instantiate: Instantiate) -> None:
        self.flows, self.instantiate = flows, instantiate

    def build(
        self, call: e.Expr, declaration: doc.Memory, bound: Bound, width: Num, path: str
    ) -> MemoryInstance | ChainInstance:
        """The instance of a memory declaration whose input has `width` features."""
        called = Called(self.flows, self.instantiate, call, declaration, bound, width, path)
        one = _Memory(called)
        return (
            ChainFields(called).chain(lambda inner: _Memory(inner).memory())
            if one.objective == "task"
            else one.memory()
        )


class _Memory(Algebra):
    """A memory with an objective of its own."""

    def __init__(self, called: Called) -> None:
        super().__init__(called)
        self.made: dict[str, Flow] = {}
        self.making: list[str] = []
        self.used: set[str] = set()
        self.broken: set[str] = set()

    def memory(self) -> MemoryInstance:
        """A memory with an objective of its own, written while the sequence is read."""
        if self.declaration.chain is not None:
            raise self.findings.stop(
                "NL0517",
                "a chain learns from the task, but the objective is another",
                self.declaration.chain.where(),
                "a chain",
                others=((self._span("objective"), f"the objective is `{self._objective_text()}`"),),
                help="write `objective = task`",
            )
        self._only_what_compiles()
        self._no_halves_of_pairs()
        still = self._stands_still()
        if still:
            self.fields = without_writes(self.fields, FIELDS)
        heads = self._heads()
        self.context = Context(
            self.scope,
            self.path,
            self._lookup,
            self._names,
            self.instantiate,
            heads=heads,
            adaptive_ok=True,
        )
        self.heads = heads
        self.writes = self._writes()
        head_width = self._head_width(heads)
        block = declared_block(self.fields["map"], self.scope) if "map" in self.fields else None
        mapping = self._map(head_width) if block is None else Map("matrix")
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
        self._as_wide_as_keys(flows)
        if block is not None:
            mapping = block_map(*block, key, value, self.context)
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
        flows = self._learned_by(
            mapping, flows, mapping.weights(int(key.shape.width), int(value.shape.width))
        )
        flows = {n: flows[n] for n in (*FLOWS, *flows) if n in flows}
        flows |= self._asked_of_the_objective(flows)
        core = self._core(mapping, flows)
        self._as_wide_as_its_answers(core, key, value)
        start, teacher = self._start()
        core = replace(core, writes=int(self.writes), groups=groups_of(flows, heads), still=still)
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
            tuple((n, f) for n, f in self.made.items() if n not in (*FIELDS, *PAIRED)),
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

    def _asked_of_the_objective(self, flows: dict[str, Flow]) -> dict[str, Flow]:
        """The pipelines that an objective written as an expression reads; its form is kept beside."""
        written = self._written_objective()
        if written is None or self.objective != "expression":
            return {}
        context, several = self.context.at("objective"), int(self.writes) > 1
        made = Writing(self.flows, context, self._local(), self.heads, flows, written, several)
        self.expression = made.expression()
        return made.made

    def _no_halves_of_pairs(self) -> None:
        """Refuse the name that the second of a pair has inside."""
        for name in PAIRED:
            if name in self.fields:
                raise self.findings.stop(
                    "NL0214",
                    f"a memory has no field `{name}`",
                    self.declaration.field_spans.get(name) or self.fields[name].span,
                    "unknown field",
                    help="write both as a pair: `erase = (along, into)`",
                )

    def _as_wide_as_keys(self, flows: dict[str, Flow]) -> None:
        """What is forgotten along and into has the width of a key."""
        key = flows["key"]
        for name, what in (("erase", "what is forgotten along"), ("erase_into", "what is forgotten into")):
            if name in flows and flows[name].shape.width.value != key.shape.width.value:
                raise self.findings.stop(
                    "NL0401",
                    (
                        f"keys have {int(key.shape.width)} features in a head and `erase` has "
                        f"{int(flows[name].shape.width)}"
                    ),
                    flows[name].span,
                    what,
                    others=((key.span, "keys"),),
                    help="give both the same width",
                )

    def _as_wide_as_its_answers(self, core: Core, key: Flow, value: Flow) -> None:
        """What a memory answers to a value, to make its own target, it takes in as a key."""
        if core.target != "self" or key.shape.width.value == value.shape.width.value:
            return
        raise self.findings.stop(
            "NL0401",
            (
                f"`target = self` asks the memory for its answer to a value, which has "
                f"{int(value.shape.width)} features in a head, and it takes keys of {int(key.shape.width)}"
            ),
            value.span,
            "values",
            others=((key.span, "keys"),),
            help="give keys and values one width, or leave `target` out",
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

    def _heads(self) -> Num:
        if "heads" in self.fields:
            return self.scope.integer(self.fields["heads"], "the number of heads")
        given = self.scope.values.get("heads")
        if isinstance(given, Num):
            self.scope.counted(given, "the number of heads", self.call.span)
            return given
        return Num(1, e.Number(1))

    def _writes(self) -> Num:
        if "writes" not in self.fields:
            return Num(1, e.Number(1))
        return self.scope.integer(self.fields["writes"], "the number of writes")

    def _head_width(self, heads: Num) -> Num:
        x = Variable(Shape("flat", self.width), "x", span=heads.span or self.call.span)
        return split(x, heads, self.scope, f"the input of `{self.declaration.name}`").shape.width

    def _map(self, head_width: Num) -> Map:
        if "map" not in self.fields:
            return Map("matrix")
        return self.flows.map(self.fields["map"], self.scope, head_width)

    # names that pipelines of this memory can read

    def _names(self) -> list[str]:
        return ["x", *(n for n in self.fields if n in FLOWS[:7] or n not in FIELDS)]

    def _lookup(self, name: str) -> Flow | None:
        if name == "x":
            return Variable(Shape("flat", self.width), "x")
        if name == "head":
            return Variable(Shape("per head", Num(1), self.heads), "head")
        if name in WRITTEN and name in self.fields and int(self.writes) > 1:
            raise self.findings.stop(
                "NL0404",
                f"`{name}` is {int(self.writes)} vectors for each token",
                self._span(name),
                "written one after the other",
                help="give what several pipelines share a name of its own",
            )
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
            flow = self.flows.build(self._expression(name), self._context(name))
            if name in (*FLOWS[:3], "erase", "erase_into"):
                flow = self._of_heads(name, flow)
        except Unresolved:
            self.broken.add(name)
            raise
        finally:
            self.making.pop()
        self.made[name] = flow
        return flow

    def _expression(self, name: str) -> e.Expr:
        """The pipeline of a field; `erase` may be a pair of them, of which the second is `erase_into`."""
        if name == "window_weight":
            return self._window_weight() or self.fields["window"]
        if name == "objective_threshold":
            return self._threshold() or self.fields["objective"]
        if name not in ("erase", "erase_into"):
            return self.fields[name]
        value = self._field("erase")
        if isinstance(value, e.TupleOf) and len(value.items) == 2:
            return value.items[name == "erase_into"]
        if not isinstance(value, e.TupleOf):
            return self.fields["erase"]
        raise self.findings.stop(
            "NL0208",
            f"`{print_expr(value)}` is {len(value.items)} pipelines",
            value.span,
            "what is forgotten along, and into",
            help="give `erase` one pipeline, or two: `(along, into)`",
        )

    def _context(self, name: str) -> Context:
        """Where the pipeline of a field stands: what is written has as many heads for each of its writes."""
        context = self.context.at(name)
        if name not in WRITTEN:
            return context
        return replace(context, heads=times(self.heads, self.writes), writes=int(self.writes))

    def _of_heads(self, name: str, flow: Flow) -> Flow:
        """A field as features of each head; the keys and values of a cache may stay in groups."""
        many = times(self.heads, self.writes) if name in WRITTEN else self.heads
        writes = int(self.writes) if name in WRITTEN else 1
        flow = split(flow, many, self.scope, f"the {name}", writes)
        if self._map_word() == "cache" and name in ("key", "value"):
            return flow
        return self._in_turn(shared(flow, many)) if name in WRITTEN else shared(flow, many)

    def _in_turn(self, flow: Flow) -> Flow:
        """What a token writes, one after the other: `[B,H*n,T,...]` to `[B,H,T*n,...]`."""
        if int(self.writes) == 1:
            return flow
        shape = replace(flow.shape, heads=self.heads)
        return Apply(shape, "in turn", flow, {"writes": self.writes}, "", span=flow.span)

    def _grouped(self, flows: dict[str, Flow]) -> dict[str, Flow]:
        """The keys and values of a cache in one number of groups."""
        key, value = flows["key"].shape.heads, flows["value"].shape.heads
        if self._map_word() != "cache" or int(key or 1) == int(value or 1):
            return flows
        return flows | {name: shared(flows[name], self.heads) for name in ("key", "value")}

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
        if isinstance(self._field("erase"), e.TupleOf):
            flows["erase_into"] = self._make("erase_into")
        if self._window_weight() is not None:
            flows["window_weight"] = self._counted("window_weight", "the weights of a window are", heads)
        if self._threshold() is not None:
            flows["objective_threshold"] = self._counted("objective_threshold", "a threshold is", heads)
        if self._declared_rule() is not None:
            return self._grouped({n: flows[n] for n in FLOWS if n in flows})
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
        return self._grouped({n: flows[n] for n in FLOWS if n in flows})

    def _counted(self, name: str, what: str, heads: Num) -> Flow:
        """What is one number a head: how much a pair counts in its windows, the threshold of an objective."""
        flow = self._gate(name, heads)
        if flow.shape.layout != "heads":
            return flow
        raise self.findings.stop(
            "NL0407",
            f"{what} {flow.shape.features} numbers for each token",
            flow.span,
            "does not fit",
            help=f"end with `linear({int(heads)})`: one number for each head",
        )

    def _gate(self, name: str, heads: Num) -> Flow:
        flow = self.flows.build(self._expression(name), self._context(name))
        shape = flow.shape
        if shape.layout in ("scalar", "per head", "gate"):
            return flow
        heads = times(heads, self.writes) if name in WRITTEN else heads
        if shape.layout == "flat" and shape.features in (1, int(heads)):
            gate = Apply(Shape("gate", Num(1), heads), "gate of heads", flow, {}, "", span=flow.span)
            return self._in_turn(gate) if name in WRITTEN else gate
        key_width = self._make("key").shape.width
        if shape.features == int(heads) * int(key_width):
            gate = split(flow, heads, self.scope, f"`{name}`")
            return self._in_turn(gate) if name in WRITTEN else gate
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
            self.instantiate,
            heads=heads,
        )
        flow = merged(self.flows.build(self.fields["out"], context))
        if flow.shape.layout != "flat":
            raise self.findings.stop(
                "NL0404", f"`out` is {flow.shape}", flow.span, "features of each token are wanted here"
            )
        return flow.shape, {**flows, "out": flow}

    def _unused(self) -> None:
        for name in self.fields:
            if name not in FIELDS and name not in self.used:
                self._unknown_field(name)


def groups_of(flows: dict[str, Flow], heads: Num) -> int | None:
    """How many heads the keys have, where they are fewer than those of the queries."""
    groups = int(flows["key"].shape.heads or heads)
    return groups if groups != int(heads) else None
