"""The expanded spec: every parameter bound, every part an instance with known shapes.

This is what checks, the level graph and code generation read.  Numbers keep the expression
they were written as (`Num.symbol`, in the parameters of the definition they stand in), so that
generated classes can say `4 * dim` where the author did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.document.expr import Expr
from nldsl.levels.graph import Clock
from nldsl.records import record
from nldsl.resolve.passes import Seen

Layout = Literal["tokens", "flat", "heads", "gate", "per head", "scalar"]


@record
class Num:
    """A number, the expression it came from in the scope it is used in, and where that stands."""

    value: int | float
    symbol: Expr | None = None
    span: Span | None = field(default=None, compare=False, repr=False)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)


@record
class Joined:
    """Streams joined in time: how many tokens stand for a position, and how many learned ones before all."""

    streams: int
    prefix: int


@record
class Shape:
    """What flows: `tokens` [B,T], `flat` [B,T,width], `heads` [B,H,T,width], `gate` [B,H,T], `per head` [H],
    `scalar` [].
    """

    layout: Layout
    width: Num
    heads: Num | None = None
    joined: Joined | None = None

    @property
    def features(self) -> int:
        """Numbers per token."""
        return int(self.width) * (int(self.heads) if self.layout == "heads" and self.heads else 1)

    def __str__(self) -> str:
        match self.layout:
            case "tokens":
                return "[batch, tokens]"
            case "flat" if self.joined is not None:
                many = self.joined.streams
                return f"[batch, tokens of {many} stream{'s' * (many != 1)}, {int(self.width)}]"
            case "flat":
                return f"[batch, tokens, {int(self.width)}]"
            case "heads":
                return f"[batch, {int(self.heads or 1)} heads, tokens, {int(self.width)}]"
            case "gate":
                return f"[batch, {int(self.heads or 1)} heads, tokens]"
            case "per head":
                return f"[{int(self.heads or 1)} heads]"
            case "scalar":
                return "a number"


# --------------------------------------------------------------------------- maps and memories


@record
class FastWeight:
    """One tensor of a block that is the map of a memory: its shape in one head, and where it begins (`None`:
    drawn).
    """

    name: str
    shape: tuple[Num, ...]
    begins: float | None


@record
class Map:
    """The function whose weights change; `hidden` and `depth` of an `mlp`, `window`, `sinks` of a `cache`."""

    kind: Literal["matrix", "vector", "mlp", "swiglu", "block", "cache"]
    hidden: Num | None = None
    depth: int = 2
    residual: bool = False
    norm: bool = False
    activation: str = "gelu"
    window: int | None = None
    sinks: int = 0
    span: Span | None = field(default=None, compare=False, repr=False)
    call: str = ""  # of a block: how it was named
    block: BlockInstance | None = field(default=None, compare=False, repr=False)
    fast: tuple[FastWeight, ...] = ()

    def weights(self, key_width: int, value_width: int) -> tuple[tuple[int, int], ...]:
        """Shapes (rows, columns) of the weights, first applied first; a vector is one row."""
        match self.kind:
            case "block":
                return tuple(
                    (int(s[0]), int(s[1])) if len(s) == 2 else (1, int(s[0]))
                    for s in (one.shape for one in self.fast)
                )
            case "matrix":
                return ((value_width, key_width),)
            case "vector":
                return ((1, key_width),)
            case "mlp":
                hidden = int(self.hidden or 4 * key_width)
                inner = ((hidden, hidden),) * (self.depth - 2)
                return (
                    ((hidden, key_width), *inner, (value_width, hidden))
                    if self.depth > 1
                    else ((value_width, key_width),)
                )
            case "swiglu":
                hidden = int(self.hidden or 4 * key_width)
                return ((hidden, key_width), (hidden, key_width), (value_width, hidden))
            case "cache":
                return ()


@record
class Parameter:
    """What an objective reads besides answers, keys and values: the pipeline `flow`, `name` where it is used.

    One number for each token and head, or as many as a value or a key has in a head.
    """

    flow: str
    kind: Literal["head", "value", "key"]
    name: str

    @property
    def field(self) -> bool:
        """Whether it is a field of the memory, such as its rate, and so there without the objective."""
        return self.flow == self.name


@record
class Expression:
    """An objective that is written out: computed number by number over an answer's channels, and summed.

    `body` is in numbers, operators, functions, `M(name)`, and names: `key`, `value`, or the flow of a
    parameter.  `answers` are the names that the memory is asked for, each once.
    """

    body: Expr
    parameters: tuple[Parameter, ...]
    answers: tuple[str, ...]
    written: str = field(default="", compare=False)


@record
class Core:
    """The algebra of one memory, free of projections: what engines are chosen by.

    The words are those of the language reference ("Meaning"): `anchor` is `retained`, `current`
    or a period in tokens; `update` is the period in tokens after which reads see what was written.
    """

    map: Map
    objective: str = "l2"
    objective_parameter: float | None = None
    expression: Expression | None = None  # with `objective` the word `expression`
    target: Literal["value", "self"] = "value"
    target_unit: bool = False  # `self |> unit`: targets keep length 1
    rule: str = "gd"
    rule_parameter: float | None = None  # the strength of `ridge`
    rate: Literal["none", "head", "channel"] = "none"
    retain: Literal["none", "head", "channel"] = "none"
    momentum: Literal["none", "head", "channel"] = "none"
    erase: bool = False
    erase_into: bool = False  # what is erased goes into a direction of its own, not the key
    update: int = 1
    anchor: str | int = "retained"
    read: Literal["after", "before", "boundary"] = "after"
    partial: str = "drop"
    window: int | None = None
    weighted: bool = False  # pairs count differently in the windows they are in
    thresholds: bool = False  # of `huber`, one for each token
    normalise: bool = False
    constrain: tuple[tuple[str, float | None, int], ...] = ()
    gradient: str = "through"
    gradient_tokens: int | None = None
    start: str = "zeros"
    writes: int = 1  # pairs that each token writes, one after the other
    groups: int | None = None  # heads of a cache's keys and values, where the queries have more

    @property
    def lowers(self) -> str:
        """The objective without its number: a word, or the expression as it is written."""
        return self.objective if self.expression is None else self.expression.written

    @property
    def parametric(self) -> bool:
        """Whether the objective reads something of its own at every token."""
        return self.thresholds or bool(self.expression and self.expression.parameters)

    @property
    def period(self) -> int:
        """Tokens between the points where gradients or reads are anchored; 1 when every token is one."""
        return max(self.update, self.anchor if isinstance(self.anchor, int) else 1)

    @property
    def boundary(self) -> int:
        """Tokens between the points whose weights `read = boundary` sees: the update's, else the anchor's."""
        return self.update if self.update > 1 else self.period


# --------------------------------------------------------------------------- flows


@record
class Flow:
    """A value on its way through a pipeline."""

    shape: Shape
    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def inputs(self) -> tuple[Flow, ...]:
        return ()

    def walk(self) -> Iterator[Flow]:
        """This flow and all it is computed from, inputs first."""
        for one in self.inputs():
            yield from one.walk()
        yield self


@record
class Variable(Flow):
    """A named value: `x`, `tokens`, `read`, a local."""

    name: str


@record
class Constant(Flow):
    """A number."""

    number: Num


@record
class Apply(Flow):
    """A primitive applied to its input.  `path` is the spec path of this stage."""

    primitive: str
    input: Flow
    arguments: dict[str, Num | str | bool]
    path: str

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


@record
class Adaptive(Flow):
    """A projection that is a memory (`adaptive mlp(residual)`), read on the head's slice of its input."""

    input: Flow
    map: Map
    path: str
    settings: dict[str, str | int]  # key, target, update overrides

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


@record
class Arithmetic(Flow):
    """`left op right`, element by element."""

    op: str
    left: Flow
    right: Flow

    def inputs(self) -> tuple[Flow, ...]:
        return (self.left, self.right)


@record
class Use(Flow):
    """A block or memory instance applied to its input; `name` where it is an instance of a `let`."""

    instance: BlockInstance | MemoryInstance | ChainInstance
    input: Flow
    name: str | None = None

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


@record
class Repeat(Flow):
    """`repeat(count, [A, B])`: the instances one after the other, `count` times, each time with weights of
    its own.
    """

    instances: tuple[BlockInstance | MemoryInstance | ChainInstance, ...]
    count: Num
    input: Flow

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


# --------------------------------------------------------------------------- streams and segments


@record
class Persistent(Flow):
    """`persistent(count)`: learned tokens that stand before a stream."""

    count: Num
    path: str


@record
class Join(Flow):
    """`[persistent(n), a, b]`: streams joined in time, what belongs to a position side by side."""

    streams: tuple[Flow, ...]
    persistent: Persistent | None

    def inputs(self) -> tuple[Flow, ...]:
        return self.streams if self.persistent is None else (self.persistent, *self.streams)


@record
class Last(Flow):
    """`last`: of joined streams the tokens of the one that was listed last."""

    input: Flow

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


@record
class ReadApart(Flow):
    """`m.read(q)`.  `written`: what this pass wrote is seen, token by token; else the weights as they are."""

    instance: MemoryInstance
    input: Flow
    name: str
    written: bool

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


@record
class WriteApart(Flow):
    """`m.write(y)`.  `read`: whether a read of this pass sees it."""

    instance: MemoryInstance
    input: Flow
    name: str
    read: bool

    def inputs(self) -> tuple[Flow, ...]:
        return (self.input,)


@record
class Segments(Flow):
    """`segments(length) { lines }`: lines that run on a segment at a time; gives their last `x`.

    `begun` are the instances that are declared inside, and begin anew with every segment.
    """

    length: Num
    lines: tuple[Line, ...]
    streams: tuple[Variable, ...]
    begun: tuple[Named, ...]

    def inputs(self) -> tuple[Flow, ...]:
        return self.streams


# --------------------------------------------------------------------------- instances


@record
class Named:
    """`let name = instance` in a block."""

    name: str
    instance: BlockInstance | MemoryInstance | ChainInstance
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class Apart:
    """How a memory is read and written apart: reads of the weights as they are, reads of what the pass wrote.

    `segment`: tokens of the segments that it is carried through, None where it begins anew with its block.
    """

    before: int
    after: int
    segment: int | None = None


@record
class Line:
    """One statement of a block: `label: target = flow`."""

    flow: Flow
    target: str | None
    label: str | None
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class BlockInstance:
    """A block with its parameters bound.  `arguments` are spelled in the scope of the caller."""

    name: str
    path: str
    arguments: dict[str, Num]
    width: Num  # of the input, in the block's own scope
    lines: tuple[Line, ...]
    shape: Shape
    span: Span | None = field(default=None, compare=False, repr=False)
    declared: Span | None = field(default=None, compare=False, repr=False)
    named: tuple[Named, ...] = ()
    seen: tuple[Seen, ...] = ()

    def every_line(self) -> Iterator[Line]:
        """The lines in order; those of segments stand before the line that holds the segments."""
        for line in self.lines:
            if isinstance(line.flow, Segments):
                yield from line.flow.lines
            yield line

    def every_name(self) -> tuple[Named, ...]:
        """The instances of every `let`, those inside segments too."""
        inside = (one for line in self.lines if isinstance(line.flow, Segments) for one in line.flow.begun)
        return (*self.named, *inside)


@record
class MemoryInstance:
    """A memory that learns inside the sequence.  `flows` holds key, value, query, rate, retain, momentum,
    erase, out.
    """

    name: str
    path: str
    arguments: dict[str, Num]
    width: Num
    heads: Num
    key_width: Num
    value_width: Num
    locals: tuple[tuple[str, Flow], ...]
    flows: dict[str, Flow]
    core: Core
    shape: Shape
    start: str
    taught_by: str | None
    reset: str
    plastic: bool
    fields: dict[str, Span | None] = field(compare=False, repr=False)
    span: Span | None = field(default=None, compare=False, repr=False)
    declared: Span | None = field(default=None, compare=False, repr=False)
    seen: tuple[Seen, ...] = ()
    apart: Apart | None = None

    def where(self, name: str) -> Span | None:
        """The span of the value of field `name`, or of the use of the memory."""
        return self.fields.get(name) or self.span or self.declared

    def adaptives(self) -> tuple[tuple[str, Adaptive], ...]:
        """Adaptive projections with the field they stand in."""
        found = []
        for name, flow in (*self.locals, *self.flows.items()):
            found += [(name, node) for node in flow.walk() if isinstance(node, Adaptive)]
        return tuple(found)


@record
class ChainLevel:
    """One set of shared weights with its clock (Nested Learning, Eq. 70-74)."""

    name: str
    path: str
    map: Map
    clock: Clock
    reduce: str
    span: Span | None = field(default=None, compare=False, repr=False)
    clock_span: Span | None = field(default=None, compare=False, repr=False)


@record
class ChainInstance:
    """A memory with `objective = task`: shared weights that learn from the model's own loss."""

    name: str
    path: str
    arguments: dict[str, Num]
    width: Num
    variant: str
    levels: tuple[ChainLevel, ...]
    shape: Shape
    span: Span | None = field(default=None, compare=False, repr=False)
    declared: Span | None = field(default=None, compare=False, repr=False)
    seen: tuple[Seen, ...] = ()


@record
class ModelInstance:
    """A model with its parameters bound: from `tokens` [B,T] to logits [B,T,vocab]."""

    name: str
    arguments: dict[str, Num]
    lines: tuple[Line, ...]
    vocab: int
    span: Span | None = field(default=None, compare=False, repr=False)


# --------------------------------------------------------------------------- training


@record
class Rule:
    """A learning rule of an outer level with all its options; `rate` is the peak, `stages` its schedule."""

    name: str
    rate: float
    stages: tuple[tuple[str, tuple[float, ...]], ...] = ()
    options: dict[str, float | int | str] = field(default_factory=dict)
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class TrainLevel:
    """An outer level: the component paths it learns (`rest` for what no other level claims), its rule and
    clock.
    """

    name: str
    learns: tuple[str, ...]
    rule: Rule
    clock: Clock
    reduce: str = "mean"
    span: Span | None = field(default=None, compare=False, repr=False)
    learns_spans: tuple[Span | None, ...] = field(default=(), compare=False, repr=False)
    clock_span: Span | None = field(default=None, compare=False, repr=False)


@record
class Data:
    """Where the stream comes from.  `length` in tokens of a sequence, `batch` in sequences of a step."""

    kind: str
    source: str
    tokenizer: str
    length: int
    batch: int
    split: str
    seed: int = 0
    span: Span | None = field(default=None, compare=False, repr=False)
    spans: dict[str, Span | None] = field(default_factory=dict, compare=False, repr=False)


@record
class Evaluate:
    """`eval every N steps { measures }`."""

    every: int
    measures: tuple[tuple[str, dict[str, float | int | str]], ...]
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class Training:
    """A `train` block, evaluated."""

    name: str
    data: Data
    objective: str
    steps: int
    levels: tuple[TrainLevel, ...]
    evaluations: tuple[Evaluate, ...] = ()
    clip: float | None = 1.0
    precision: str = "float32"
    seed: int = 0
    checkpoint_every: int | None = None
    compile: bool = False
    span: Span | None = field(default=None, compare=False, repr=False)
    spans: dict[str, Span | None] = field(default_factory=dict, compare=False, repr=False)


@record
class Expanded:
    """A resolved spec.  `model` is None for a file that only declares memories; `training` for one without
    `train`.
    """

    name: str
    model: ModelInstance | None
    training: Training | None
    variant: str | None = None

    def instances(self) -> Iterator[tuple[BlockInstance | MemoryInstance | ChainInstance, int]]:
        """Every instance below the model with the number of its copies, in depth order."""
        if self.model is not None:
            for line in self.model.lines:
                yield from _instances(line.flow, 1)


def _instances(
    flow: Flow, copies: int
) -> Iterator[tuple[BlockInstance | MemoryInstance | ChainInstance, int]]:
    for node in flow.walk():
        if isinstance(node, Use) and node.name is None:
            yield from _below(node.instance, copies)
        elif isinstance(node, Repeat):
            for instance in node.instances:
                yield from _below(instance, copies * int(node.count))


def _below(
    instance: BlockInstance | MemoryInstance | ChainInstance, copies: int
) -> Iterator[tuple[BlockInstance | MemoryInstance | ChainInstance, int]]:
    """An instance and those in it; the instance of a `let` counts once, wherever it is used."""
    yield instance, copies
    if isinstance(instance, BlockInstance):
        for one in instance.every_name():
            yield from _below(one.instance, copies)
        for line in instance.every_line():
            yield from _instances(line.flow, copies)
