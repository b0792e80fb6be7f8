"""The expanded spec: every parameter bound, every part an instance with known shapes.

This is what checks, the level graph and code generation read, and the one place to import it from: numbers
and shapes are in `shapes`, what pipelines are made of in `pipelines`, the algebra of a memory in `core`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Literal

from nldsl.diagnostics.model import Span
from nldsl.levels.graph import Clock
from nldsl.records import record
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.core import Core, Expression, FastWeight, Map, Parameter
from nldsl.resolve.passes import Seen
from nldsl.resolve.pipelines import (
    Adaptive,
    Apply,
    Arithmetic,
    Constant,
    Flow,
    Join,
    Last,
    Persistent,
    ReadApart,
    Repeat,
    Segments,
    Use,
    Variable,
    WriteApart,
)
from nldsl.resolve.shapes import Joined, Layout, Num, Shape

__all__ = [
    "Adaptive",
    "Apart",
    "Apply",
    "Arithmetic",
    "BlockInstance",
    "ChainInstance",
    "ChainLevel",
    "Constant",
    "Core",
    "Data",
    "Evaluate",
    "Expanded",
    "Expression",
    "FastWeight",
    "Flow",
    "Join",
    "Joined",
    "Last",
    "Layout",
    "Line",
    "Map",
    "MemoryInstance",
    "ModelInstance",
    "Named",
    "Num",
    "Parameter",
    "Persistent",
    "Pretrained",
    "ReadApart",
    "Repeat",
    "Rule",
    "Segments",
    "Shape",
    "Task",
    "TrainLevel",
    "Training",
    "Use",
    "Variable",
    "WriteApart",
]


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
class Pretrained:
    """Weights that begin as those of a `safetensors` file.

    `path` is the part of the file that a level takes, `*` the number of its block; None: the whole model.
    `rename` holds pairs of a customary name, or of a parameter of the model, and what the file says for it.
    With `partial` the model may have weights that the file lacks, and the file such that the model lacks.
    """

    file: str
    path: str | None = None
    rename: tuple[tuple[str, str], ...] = ()
    partial: bool = False
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class ChainLevel:
    """One set of weights of the task with its clock (Nested Learning, Eq. 70-74).

    `start` is where the weights begin: `learned`, `learned in` or `copy of` the level `teacher`,
    `pretrained`. They return there on `reset`, or whenever the level `reset_with` changes; None: never.
    `rule`, `rate`, `retain`, `momentum` and `gradient` are those of levels with weights of each sequence,
    which always return to their start with the next one.  `memory` is a level that has an objective of its
    own: a memory that stands in the chain, whose map and clock are repeated here.
    """

    name: str
    path: str
    map: Map
    clock: Clock
    reduce: str
    start: str = "learned"
    teacher: str | None = None
    reset: Clock | None = None
    reset_with: str | None = None
    plastic: bool = False
    rule: Rule | None = None
    rate: float | None = None
    retain: float = 1.0
    momentum: float = 0.0
    gradient: str = "first_order"
    memory: MemoryInstance | None = None
    span: Span | None = field(default=None, compare=False, repr=False)
    clock_span: Span | None = field(default=None, compare=False, repr=False)
    fields: dict[str, Span | None] = field(default_factory=dict, compare=False, repr=False)
    pretrained: Pretrained | None = None

    def where(self, name: str) -> Span | None:
        """The span of the value of field `name`, or of the level."""
        return self.fields.get(name) or self.span


@record
class ChainInstance:
    """A memory with `objective = task`: weights that learn from the model's own loss.

    `variant` is `sequential`, `nested` or `independent`; `combine` how the answers of independent levels
    become one (`weighted`, `weighted softmax`, `mean`, `sum` or `gated`); `scope` whose the weights are,
    `shared` or `sequence`.
    """

    name: str
    path: str
    arguments: dict[str, Num]
    width: Num
    variant: str
    levels: tuple[ChainLevel, ...]
    shape: Shape
    combine: str = "weighted"
    scope: str = "shared"
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
    algorithm: Algorithm | None = None


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


WINDOWS = 64
"""Held-out windows that are measured where nothing is said."""

BYTES = 256
PIXELS = 17  # of a digit: 0 to 16


@record
class Task:
    """One of several tasks; `kind` is `text` (of `years`, both included, where it has them), `pairs`, or
    `classes` with their `labels`.
    """

    name: str
    kind: str
    source: str
    years: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class Data:
    """Where the stream comes from.  `length` in tokens of a sequence, `batch` in sequences of a step.

    Each of the `tasks` is read for `each` steps in the `order` `sequence`, all at once in the order `joint`.
    `counts` is `answer` where only a label or a pair's target is asked for, else `all`.
    """

    kind: str
    source: str
    tokenizer: str
    length: int
    batch: int
    split: str
    seed: int = 0
    tasks: tuple[Task, ...] = ()
    each: int = 0
    order: str = "sequence"
    counts: str = "all"
    span: Span | None = field(default=None, compare=False, repr=False)
    spans: dict[str, Span | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """The texts and sets that are read, each once."""
        return tuple(dict.fromkeys(task.source for task in self.tasks)) or (self.source,)

    @property
    def vocabulary(self) -> int:
        """How many tokens there can be: bytes or pixels, and behind them the labels of a source's classes."""
        return max((self._tokens_of(source) for source in self.sources), default=BYTES)

    def _tokens_of(self, source: str) -> int:
        labels = {label for task in self.tasks if task.source == source for label in task.labels}
        return (PIXELS if source == "digits" else BYTES) + len(labels)


@record
class Evaluate:
    """`eval every N steps { measures }`."""

    every: int
    measures: tuple[tuple[str, dict[str, float | int | str]], ...]
    span: Span | None = field(default=None, compare=False, repr=False)


@record
class Training:
    """A `train` block, evaluated.

    `evaluate_windows`: how many windows of the held-out text, or items of each task, are measured at most.
    """

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
    start: Pretrained | None = None
    evaluate_windows: int | Literal["all"] = WINDOWS


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
    elif isinstance(instance, ChainInstance):
        for level in instance.levels:
            if level.memory is not None:
                yield from _below(level.memory, copies)
