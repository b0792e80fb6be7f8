"""Generated classes of memories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import (
    ClassWriter,
    Namespace,
    Written,
    gives,
    notes,
    origin,
    reserved,
    signature,
    spelled,
    trimmed,
)
from nldsl.codegen.emit.flows import KEEPS, FlowWriter
from nldsl.codegen.emit.inner_rules import rule_method
from nldsl.codegen.emit.maps import MapWriter, block_start, block_zeros, method_name
from nldsl.codegen.emit.objectives import handed, objective_method
from nldsl.codegen.emit.pretrained import of_attention
from nldsl.codegen.plan.engines import TOKEN_LOOP, Choice
from nldsl.diagnostics.model import Span
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    Arithmetic,
    Flow,
    Map,
    MemoryInstance,
    Num,
    Repeat,
    Shape,
    Use,
    Variable,
)

LOCALS = frozenset({"x", "state", "read", "y", "core", "position", "head"})

UseWriter = Callable[[FlowWriter, Use | Repeat, c.Code], c.Code]


class MemoryWriter:
    """Writes the class of one memory."""

    kept: frozenset[str] = LOCALS

    def __init__(self, instance: MemoryInstance, use: UseWriter) -> None:
        self.instance, self.use = instance, use
        self.owner = ClassWriter(instance.arguments)
        self.names = Namespace(kept=lambda name: name in self.kept or reserved(name))
        self.steps: list[c.Step] = []
        constants = {n: f for n, f in instance.locals if f.shape.layout in ("scalar", "per head")}
        everything = {**dict(instance.locals), **instance.flows}
        self.flows: dict[str, Flow] = {
            n: inlined(f, constants) for n, f in everything.items() if n not in constants
        }
        self.out = self.flows.pop("out", None)
        self.local = {name: self.names.fresh(name) for name in self.flows}
        self.done: set[str] = set()
        self.methods: list[c.Step] = []
        expression = instance.core.expression
        self.asked = {one.flow for one in expression.parameters} if expression is not None else set[str]()
        self.lowered = ""  # the method of an objective that is written out
        self.begun = self.names.fresh("start")

    # ------------------------------------------------------------------ whole classes

    def write(self, choice: Choice) -> tuple[Written, dict[str, str]]:
        """A memory whose core is one engine."""
        self.begin(self.flows)
        for name in self.flows:
            self.field(name)
        self._core(choice)
        self.end()
        engine = choice.engine
        summary = f"{engine.name[0].upper()}{engine.name[1:]} ({engine.reference}): {engine.summary}."
        return self.finish(summary)

    def begin(self, flows: dict[str, Flow]) -> None:
        """The position of the first token, where these pipelines turn features by theirs."""
        if any(getattr(n, "primitive", "") == "rope" for f in flows.values() for n in f.walk()):
            self.steps.append(c.Assign(c.name("position"), c.call("state.get", '"position"', 0)))
            self.owner.keep(
                "position", c.call("torch.as_tensor", c.Infix("+", c.name("position"), c.name("x.shape[1]")))
            )

    def end(self) -> None:
        """From what was read to the output."""
        out = self.out
        if out is None:
            self.steps.append(
                c.Assign(c.name("y"), c.Invoke(self.owner.kernel("merge_heads", "parts"), (c.name("read"),)))
            )
            return
        self.mention("out")
        writer = self.writer("out", "y", f"{self.instance.path}.projections")
        value = writer.write(out)
        if value != c.name("y"):
            self.steps.append(c.Assign(c.name("y"), value))

    def finish(self, summary: str) -> tuple[Written, dict[str, str]]:
        instance = self.instance
        steps = [
            c.Assign(c.name("state"), c.name("state or {}")),
            *self.steps,
            *gives(c.name("y"), self.owner.state()),
        ]
        if instance.core.map.kind == "cache":
            flows = self.flows | ({"out": self.out} if self.out is not None else {})
            self.owner.customary = of_attention(flows, self.owner.made)
        made, kernels = finished(
            self.owner, instance.name, docstring(instance.declared, summary), steps, stateful=True
        )
        made.step = replace(made.step, body=(*made.step.body, *self.methods))
        return made, kernels

    # ------------------------------------------------------------------ fields

    def writer(self, prefix: str, result: str, path: str) -> FlowWriter:
        return FlowWriter(
            self.owner,
            self.names,
            self.steps,
            prefix,
            result,
            path,
            self.use,
            per_head=self.of_heads,
            variables=self.variables(),
            position="position",
        )

    def variables(self) -> dict[str, c.Code]:
        """What the names in pipelines are called here."""
        return {name: c.name(local) for name, local in self.local.items()}

    def mention(self, name: str) -> None:
        span = self.instance.fields.get(name)
        if span is not None:
            self.steps.append(c.Comment(trimmed(f"{origin(span)}  {name} = {spelled(span)}")))

    def field(self, name: str) -> None:
        """Write a field, and first what it reads."""
        if name in self.done:
            return
        self.done.add(name)
        flow = self.flows[name]
        for node in flow.walk():
            if isinstance(node, Variable) and node.name in self.flows:
                self.field(node.name)
        if isinstance(flow, Variable) and name in self.asked and flow.name in self.local:
            self.local[name] = self.local[flow.name]  # a parameter that stands as it is
            return
        self.mention(name)
        self.assign(name, flow, self.writer(name, self.local[name], f"{self.instance.path}.projections"))

    def assign(self, name: str, flow: Flow, writer: FlowWriter) -> None:
        target = c.name(self.local[name])
        written = self.instance.core.writes == 1 or name == "rate"
        like = "key[..., 0]" if written else "query[..., 0]"
        if flow.shape.layout == "per head":
            value: c.Code = c.Method(
                c.Indexed(self.of_heads(name, flow), ":, None"), "expand_as", (c.name(like),)
            )
        elif flow.shape.layout == "scalar":
            number = writer.write(flow)
            value = c.call("torch.full_like", like, number)
            if name in KEEPS:
                value = c.Invoke(self.owner.kernel("constant_gate", "parts"), (c.name(like), number))
        else:
            value = writer.write(flow)
        if value != target:
            self.steps.append(c.Assign(target, value, shape_words(flow.shape)))
        elif self.steps and isinstance(last := self.steps[-1], c.Assign) and last.target == target:
            self.steps[-1] = replace(last, comment=shape_words(flow.shape))

    def of_heads(self, name: str, flow: Flow) -> c.Code:
        """One constant for each head, `[H]`: computed once, in the constructor."""
        heads = c.call("torch.arange", c.call("float", self.owner.number(self.instance.heads)))
        inner = FlowWriter(self.owner, Namespace(), [], name, name, "", self.use, variables={"head": heads})
        attribute = self.owner.attributes.fresh(f"{name}_of_heads")
        built = inner.write(flow)
        self.owner.modules.append(
            c.Do(c.call("self.register_buffer", f'"{attribute}"', built, persistent="False"))
        )
        self.owner.buffers.append(attribute)
        return c.name(f"self.{attribute}")

    # ------------------------------------------------------------------ the core

    def _core(self, choice: Choice) -> None:
        core = self.instance.core
        engine = choice.engine
        named: list[tuple[str, c.Code]] = [(name, self._input(name)) for name in choice.inputs]
        if core.rule == "gd_implicit" and engine is not TOKEN_LOOP:
            given = tuple(c.name(name) for name in ("key", *(n for n in choice.inputs if n == "rate")))
            own = c.Invoke(self.owner.kernel("implicit_rate", "implicit"), given)
            named = [("rate", own), *((name, value) for name, value in named if name != "rate")]
        start = self.start()
        if start is not None:
            named.append(("start", start))
        named += [(k, self._setting(k, v)) for k, v in choice.keywords.items()]
        named.append(("state", c.call("state.get", '"core"')))
        function = self.owner.kernel(engine.function, engine.file)
        given = self._still(tuple(choice.inputs))
        named = [(name, given.get(name, value)) for name, value in named]
        pairs = (c.name("query"), *(given.get(name, c.name(name)) for name in ("key", "value")))
        if core.writes > 1:
            named.append(("writes", c.Atom(str(core.writes))))
            several = self.owner.kernel("several", "several")
            value = c.Invoke(several, (c.name(function), *pairs), tuple(named))
        else:
            value = c.Invoke(function, pairs, tuple(named))
        heads = "[B, H, T, d]" if core.map.kind != "cache" else ""
        self.steps.append(c.Assign(c.Several((c.name("read"), c.name("core")), bare=True), value, heads))
        self.owner.keep("core", "core")

    def _still(self, inputs: tuple[str, ...]) -> dict[str, c.Code]:
        """Without plasticity, what the engine is given for a field: at test time a write of nothing."""
        if self.instance.plastic:
            return {}
        self.steps.append(
            c.Comment("Not plastic: at test time nothing is written, and nothing is forgotten.")
        )
        given: dict[str, c.Code] = {}
        for name in ("key", "value", *(["retain"] if "retain" in inputs else [])):
            nothing = "torch.ones_like" if name == "retain" else "torch.zeros_like"
            given[name] = c.name(self.names.fresh("kept" if name == "retain" else f"written_{name}"))
            value = c.Atom(f"{name} if self.training else {nothing}({name})")
            self.steps.append(c.Assign(given[name], value))
        return given

    def _input(self, name: str) -> c.Code:
        """What an engine is handed under this name: a field, or the pair of fields that stand there."""
        expression = self.instance.core.expression
        if name == "objective_parameter" and expression is not None:
            return handed(expression, self.local)
        inside = {"weight": "window_weight", "objective_parameter": "objective_threshold"}
        if name in inside:
            return c.name(self.local[inside[name]])
        if name == "erase" and self.instance.core.erase_into:
            return c.Several((c.name("erase"), c.name("erase_into")))
        return c.name(name)

    def start(self) -> c.Code | None:
        """The start of the fast weights, where it is not just zeros."""
        instance = self.instance
        one = instance.core.map
        if one.kind == "cache":
            return None
        if one.kind == "block":
            return self._block_start(one)
        shapes = map_shapes(one, instance.key_width, instance.value_width, self.owner)
        heads = self.owner.number(instance.heads)
        if instance.start == "zeros":
            if one.kind in ("matrix", "vector"):
                return None
            zeros = [
                c.call("x.new_zeros", self.owner.constant(instance.heads, "heads"), *self._forward_shape(s))
                for s in self._sizes(one)
            ]
            return c.Several(tuple(zeros))
        if one.kind in ("matrix", "vector"):
            made = c.call(
                "nn.Parameter",
                c.call("torch.zeros", heads, *(shapes[0] if one.kind == "matrix" else shapes[0][1:])),
            )
            return c.name(self.owner.module("start", made, (instance.path,)))
        made = fast_starts(self.owner, heads, shapes)
        return c.call("tuple", self.owner.module("start", made, (instance.path,)))

    def _block_start(self, one: Map) -> c.Code:
        """The start of a block's weights, by name, as a variable: their shapes are read off it too."""
        instance = self.instance
        if instance.start == "zeros":
            made = block_zeros(one, self.owner.constant(instance.heads, "heads"))
        else:
            learned = block_start(self.owner, one, self.owner.number(instance.heads))
            made = c.call(
                "dict", c.Method(c.name(self.owner.module("start", learned, (instance.path,))), "items")
            )
        self.steps.append(c.Assign(c.name(self.begun), made))
        return c.name(self.begun)

    def _setting(self, name: str, value: object) -> c.Code:
        """A setting of an engine; a map or an objective of one's own comes as a method of the class."""
        one, expression = self.instance.core.map, self.instance.core.expression
        if name == "objective" and expression is not None:
            if not self.lowered:
                self.lowered = self.owner.attributes.fresh("objective")
                self.methods += [c.Blank(), *objective_method(expression, self.lowered)]
            return c.name(f"self.{self.lowered}")
        if name == "rule" and (rule := self.instance.core.optimizer) is not None:
            return rule_method(self.owner, rule)
        if name != "map" or one.block is None:
            return setting(self.owner, one, value)
        method = method_name(one.block, self.owner.attributes)
        self.methods += [c.Blank(), *MapWriter(self.owner, one.block).write(method)]
        shapes = c.name(f"{{n: w.shape[1:] for n, w in {self.begun}.items()}}")
        return c.Mapping(
            (("kind", c.name('"block"')), ("function", c.name(f"self.{method}")), ("shapes", shapes))
        )

    def _sizes(self, one: Map) -> tuple[tuple[int, int], ...]:
        return one.weights(int(self.instance.key_width), int(self.instance.value_width))

    def _forward_shape(self, shape: tuple[int, int]) -> list[c.Code]:
        return [c.Atom(str(n)) for n in shape]


def inlined(flow: Flow, constants: dict[str, Flow]) -> Flow:
    """A flow with constants written where they were named."""
    match flow:
        case Variable(name=name) if name in constants:
            return inlined(constants[name], constants)
        case Arithmetic(left=left, right=right):
            return replace(flow, left=inlined(left, constants), right=inlined(right, constants))
        case Apply(input=source) | Adaptive(input=source) | Use(input=source) | Repeat(input=source):
            return replace(flow, input=inlined(source, constants))
        case _:
            return flow


def fast_starts(owner: ClassWriter, heads: c.Code, shapes: list[tuple[c.Code, c.Code]]) -> c.Code:
    """`fast_starts(heads, (rows, columns), ...)`."""
    return c.Invoke(owner.kernel("fast_starts", "parts"), (heads, *(c.Several(s) for s in shapes)))


def map_shapes(one: Map, key: Num, value: Num, owner: ClassWriter) -> list[tuple[c.Code, c.Code]]:
    """Rows and columns of each weight matrix of a map, as code for the constructor."""
    k, v = owner.number(key), owner.number(value)
    if one.kind in ("matrix", "vector"):
        return [(v, k)]
    hidden = owner.number(one.hidden) if one.hidden is not None else c.Infix("*", c.Atom("4"), k)
    if one.kind == "swiglu":
        return [(hidden, k), (hidden, k), (v, hidden)]
    if one.depth == 1:
        return [(v, k)]
    return [(hidden, k), *[(hidden, hidden)] * (one.depth - 2), (v, hidden)]


def literal(value: object) -> c.Code:
    """A setting as Python writes it, strings in double quotes."""
    if isinstance(value, str):
        return c.Atom(f'"{value}"')
    if isinstance(value, dict):
        return c.Mapping(tuple((str(k), literal(v)) for k, v in value.items()))
    if isinstance(value, tuple):
        return c.Several(tuple(literal(v) for v in value))
    return c.Atom(repr(value))


def setting(owner: ClassWriter, one: Map, value: object) -> c.Code:
    """A setting of an engine; the hidden width of a map follows the sizes the class is made with."""
    if isinstance(value, dict) and one.hidden is not None:
        hidden = owner.constant(one.hidden, "hidden")
        return c.Mapping(tuple((str(k), hidden if k == "hidden" else literal(v)) for k, v in value.items()))
    return literal(value)


def shape_words(shape: Shape) -> str:
    """A shape as a comment."""
    return {
        "heads": "[B, H, T, d]",
        "gate": "[B, H, T]",
        "flat": "[B, T, d]",
        "per head": "[B, H, T]",
        "scalar": "[B, H, T]",
    }.get(shape.layout, "")


def docstring(declared: Span | None, summary: str = "") -> str:
    """What the spec says above the declaration, how it is computed, and where it stands."""
    said = notes(declared)
    place = f"From {origin(declared)}." if declared is not None else ""
    if not summary:
        return f"{said}\n\n{place}" if said else place
    return f"{said}\n\n{summary}\n{place}" if said else f"{summary}\n\n{place}"


def constructor(owner: ClassWriter, parameters: tuple[str, ...]) -> tuple[c.Step, ...]:
    """How the class of a part begins: the types of its buffers, and `__init__`."""
    annotations: list[c.Step] = [c.Verbatim(f"    {b}: Tensor") for b in owner.buffers]
    init = c.Function(
        "__init__",
        signature(parameters, owner.values),
        "None",
        (c.Do(c.Atom("super().__init__()")), *owner.sizes, *owner.modules),
    )
    return (*annotations, *((c.Blank(),) if annotations else ()), init)


def finished(
    owner: ClassWriter, name: str, text: str, steps: list[c.Step], *, stateful: bool
) -> tuple[Written, dict[str, str]]:
    """The class of a part: constructor and `forward`."""
    parameters = tuple(p for p in owner.values if p in owner.used)
    if stateful:
        takes, gives = ("self", "x: Tensor", "state: State | None = None"), "tuple[Tensor, State]"
        say = "`x` `[B, T, d]` and what an earlier call handed on; gives the same shape and the new state."
    else:
        takes, gives, say = ("self", "x: Tensor"), "Tensor", ""
    forward = c.Function("forward", takes, gives, tuple(steps), say)
    body = (*constructor(owner, parameters), c.Blank(), forward, *owner.methods)
    return Written(
        name,
        parameters,
        stateful,
        c.Class(name, ("nn.Module",), body, text),
        owner.own,
        owner.children,
        owner.customary,
    ), owner.kernels
