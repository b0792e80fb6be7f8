"""Flows: pipelines with a shape at every stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING

from nldsl.diagnostics.model import Span
from nldsl.records import record
from nldsl.resolve.core import Map
from nldsl.resolve.shapes import Num, Shape

if TYPE_CHECKING:
    from nldsl.resolve.expanded import BlockInstance, ChainInstance, Line, MemoryInstance, Named


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
