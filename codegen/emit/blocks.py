"""Generated classes of blocks: their lines, the instances they name, and what runs segment by segment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import (
    ClassWriter,
    Namespace,
    Written,
    gives,
    origin,
    reserved,
    spelled,
    trimmed,
)
from nldsl.codegen.emit.flows import FlowWriter
from nldsl.codegen.emit.memories import docstring, finished
from nldsl.codegen.emit.pretrained import of_lines
from nldsl.resolve.expanded import (
    Arithmetic,
    BlockInstance,
    ChainInstance,
    Flow,
    Join,
    Last,
    Line,
    MemoryInstance,
    Named,
    ReadApart,
    Repeat,
    Segments,
    Use,
    Variable,
    WriteApart,
)

Instance = BlockInstance | MemoryInstance | ChainInstance


class Emitter(Protocol):
    """What writes the classes that stand in a block."""

    def part(self, instance: Instance, methods: frozenset[str] = frozenset()) -> Written: ...
    def construct(self, owner: ClassWriter, instance: Instance, made: Written) -> c.Code: ...
    def use(self, writer: FlowWriter, flow: Use | Repeat, x: c.Code) -> c.Code: ...


@dataclass(slots=True)
class Method:
    """One method on its way: its steps, its names, and the state it hands on.

    Of a method for segments, `carried` holds the state that goes on from one to the next, and `states` what
    begins anew.
    """

    steps: list[c.Step]
    names: Namespace
    states: list[tuple[str, c.Code]] = field(default_factory=list)
    carried: list[tuple[str, c.Code]] | None = None
    variables: dict[str, c.Code] = field(default_factory=dict)
    tokens: str = "x.shape[1]"

    def hold(self, key: str, *, carried: bool) -> tuple[c.Code, c.Code]:
        """Where a state comes from, and the variable for the new one, which is handed on."""
        new = c.name(self.names.fresh(key))
        goes_on = self.carried if carried else None
        (self.states if goes_on is None else goes_on).append((key, new))
        return c.call(f"{'state' if goes_on is None else 'carried'}.get", f'"{key}"'), new


@dataclass(slots=True)
class Shared:
    """An instance of a `let`: its attribute, its class, whether it is declared inside segments.

    `core` and `pairs` are the variables of what a pass has written so far, `before` that of the memory as the
    pass found it.
    """

    attribute: str
    made: Written
    inside: bool
    written: bool
    used: bool = False
    pairs: c.Code | None = None
    core: c.Code | None = None
    before: c.Code | None = None


class BlockWriter:
    """Writes the class of one block."""

    def __init__(self, instance: BlockInstance, emitter: Emitter) -> None:
        self.instance, self.emitter = instance, emitter
        self.owner = ClassWriter(instance.arguments)
        self.shared: dict[str, Shared] = {}
        self.methods: list[c.Step] = []
        self.method = Method([], Namespace(frozenset({"x"}), kept=kept_in_flows))

    def write(self) -> tuple[Written, dict[str, str]]:
        """The class, and the kernels that it needs."""
        instance, method = self.instance, self.method
        self._declare(instance.named, inside=False)
        result = self._lines(instance.lines)
        if method.states:
            method.steps.insert(0, c.Assign(c.name("state"), c.name("state or {}")))
            method.steps += gives(result, c.Mapping(tuple(method.states)))
        else:
            method.steps.append(c.Return(result))
        self.owner.customary = of_lines(instance.every_line(), self.owner.made)
        made, kernels = finished(
            self.owner,
            instance.name,
            docstring(instance.declared),
            method.steps,
            stateful=bool(method.states),
        )
        marked = (
            c.Verbatim("    compile_region = True  # `torch.compile` compiles each kind of block once"),
            c.Blank(),
            *made.step.body,
            *(step for one in self.methods for step in (c.Blank(), one)),
        )
        made.step = c.Class(made.name, made.step.bases, marked, made.step.docstring)
        return made, kernels

    # ------------------------------------------------------------------ lines

    def _lines(self, lines: tuple[Line, ...]) -> c.Code:
        """All lines; gives the last `x`, or the value of the last line where `x` is never bound."""
        method = self.method
        names = method.variables = method.variables | variables(lines, method.names)
        scratch = scratch_name(method.names)
        last: c.Code = c.name("x")
        self.owner.states = method.states
        if any(isinstance(node, Last) for line in lines for node in line.flow.walk()):
            method.tokens = method.names.fresh("tokens")
            method.steps.append(c.Assign(c.name(method.tokens), c.name("x.shape[1]")))
        for line in lines:
            writer = FlowWriter(
                self.owner,
                method.names,
                method.steps,
                line.label or "",
                result_name(line, names, scratch),
                "",
                self.emitter.use,
                variables=names,
                streams=self._stream,
                shared=self._whole,
            )
            last = write_line(line, writer)
        return c.name("x") if any(line.target == "x" for line in lines) else last

    # ------------------------------------------------------------------ instances

    def _declare(self, named: tuple[Named, ...], *, inside: bool) -> None:
        lines = list(self.instance.every_line())
        for one in named:
            flows = [n for line in lines for n in line.flow.walk()]
            made = self.emitter.part(one.instance, _methods(one.name, flows))
            attribute = self.owner.module(
                one.name, self.emitter.construct(self.owner, one.instance, made)
            ).removeprefix("self.")
            self.owner.children.append((attribute, made))
            written = any(isinstance(n, WriteApart) and n.name == one.name for n in flows)
            self.shared[one.name] = Shared(attribute, made, inside, written)

    def _whole(self, writer: FlowWriter, flow: Use, x: c.Code) -> c.Code:
        """An instance of a `let`, used whole: the same weights, and at each place a state of its own."""
        one = self.shared[flow.name or ""]
        if not one.made.stateful:
            return c.Invoke(f"self.{one.attribute}", (x,))
        key = self.owner.attributes.fresh(one.attribute) if one.used else one.attribute
        one.used = True
        old, new = self.method.hold(key, carried=not one.inside)
        target = c.name(writer.result)
        call = c.Invoke(f"self.{one.attribute}", (x, old))
        writer.steps.append(c.Assign(c.Several((target, new), bare=True), call))
        return target

    # ------------------------------------------------------------------ streams

    def _stream(self, writer: FlowWriter, flow: Flow) -> c.Code:
        match flow:
            case Join():
                return self._join(writer, flow)
            case Last(input=joined):
                many = joined.shape.joined.streams if joined.shape.joined is not None else 1
                value = writer.keep(writer.write(joined))
                kernel = self.owner.kernel("last_stream", "streams")
                return c.Invoke(kernel, (value, c.Atom(str(many)), c.name(self.method.tokens)))
            case ReadApart():
                return self._read(writer, flow)
            case WriteApart():
                return self._write(writer, flow)
            case Segments():
                return self._segments(flow)
            case _:
                raise TypeError(f"no such flow: {type(flow).__name__}")

    def _join(self, writer: FlowWriter, flow: Join) -> c.Code:
        streams = []
        for one in flow.streams:
            value = writer.write(one)
            if not isinstance(one, Variable) and one is not flow.streams[-1]:
                value = self._named(writer, value)  # what follows may need the variable of the line
            streams.append(value)
        given: list[c.Code] = [c.Several(tuple(streams))]
        if flow.persistent is not None:
            count, width = flow.persistent.count, flow.persistent.shape.width
            built = c.call(
                self.owner.kernel("persistent_tokens", "streams"),
                self.owner.number(count),
                self.owner.number(width),
            )
            tokens = self.owner.module("persistent", built, (flow.persistent.path,))
            key = tokens.removeprefix("self.")
            self.method.states.append((key, c.name("None")))  # once they were seen, nothing stands there
            given.append(c.call("state.get", f'"{key}"', tokens))
        return c.Invoke(self.owner.kernel("join_streams", "streams"), tuple(given))

    def _named(self, writer: FlowWriter, value: c.Code) -> c.Code:
        kept = c.name(writer.names.fresh("stream"))
        writer.steps.append(c.Assign(kept, value))
        return kept

    # ------------------------------------------------------------------ memories read and written apart

    def _read(self, writer: FlowWriter, flow: ReadApart) -> c.Code:
        one = self.shared[flow.name]
        x = writer.keep(writer.write(flow.input))
        target = c.name(writer.result)
        way = "read" if flow.written else "recall"
        key = self.owner.attributes.fresh(f"{one.attribute}_{way}")
        if not flow.written:
            before = self._before(one)
            old, new = self.method.hold(key, carried=not one.inside)
            call = c.Invoke(f"self.{one.attribute}.recall", (x, before, old))
            writer.steps.append(c.Assign(c.Several((target, new), bare=True), call))
            return target
        assert one.pairs is not None
        first = one.core is None
        source, core = self._core(one)
        old, new = self.method.hold(key, carried=not one.inside)
        call = c.Invoke(f"self.{one.attribute}.read", (x, one.pairs, source, old))
        took = core if first else c.name("_")
        writer.steps.append(c.Assign(c.Several((target, took, new), bare=True), call))
        return target

    def _write(self, writer: FlowWriter, flow: WriteApart) -> c.Code:
        one = self.shared[flow.name]
        x = writer.keep(writer.write(flow.input))
        pairs = c.name(writer.names.fresh(f"{one.attribute}_pairs"))
        old, new = self.method.hold(
            self.owner.attributes.fresh(f"{one.attribute}_write"), carried=not one.inside
        )
        call = c.Invoke(f"self.{one.attribute}.write", (x, old))
        writer.steps.append(c.Assign(c.Several((pairs, new), bare=True), call))
        one.pairs = pairs
        if not flow.read:
            source, core = self._core(one)
            writer.steps.append(c.Assign(core, c.Invoke(f"self.{one.attribute}.store", (pairs, source))))
        return c.name("x")

    def _core(self, one: Shared) -> tuple[c.Code, c.Code]:
        """Where the memory's weights come from in this pass, and the variable of the new ones."""
        carried = not one.inside and self.method.carried is not None
        source = c.call(f"{'carried' if carried else 'state'}.get", f'"{one.attribute}"')
        if one.core is None:
            _, one.core = self.method.hold(one.attribute, carried=not one.inside)
        return source, one.core

    def _before(self, one: Shared) -> c.Code:
        """The memory as this pass found it: a segment keeps it beside the one that is written."""
        if self.method.carried is None or one.inside or not one.written:
            return c.name("None")
        if one.before is None:
            key = self.owner.attributes.fresh(f"{one.attribute}_before")
            one.before = c.name(self.method.names.fresh(key))
            now = c.call("carried.get", f'"{one.attribute}"')
            self.method.steps.append(c.Assign(one.before, c.call("state.get", f'"{key}"', now)))
            self.method.states.append((key, one.before))
        return one.before

    # ------------------------------------------------------------------ segments

    def _segments(self, flow: Segments) -> c.Code:
        outer = self.method
        called = self.owner.attributes.fresh("run_segment")
        key = self.owner.attributes.fresh("segments")
        self.method = Method([], Namespace(frozenset({"x"}), kept=kept_in_flows), carried=[])
        names = {s.name: "x" if s.name == "x" else self.method.names.fresh(s.name) for s in flow.streams}
        self.method.variables = {name: c.name(local) for name, local in names.items()}
        self._declare(flow.begun, inside=True)
        result = self._lines(flow.lines)
        inner, self.method = self.method, outer
        self.owner.states = outer.states
        both = (c.Mapping(tuple(inner.states)), c.Mapping(tuple(inner.carried or ())))
        steps = (
            *inner.steps,
            c.Assign(c.name("state"), both[0]),
            c.Assign(c.name("carried"), both[1]),
            c.Return(c.Several((result, c.name("state"), c.name("carried")), bare=True)),
        )
        self.methods.append(
            c.Function(
                called,
                ("self", *(f"{n}: Tensor" for n in names.values()), "state: State", "carried: State"),
                "tuple[Tensor, State, State]",
                steps,
                "A segment, or a piece of one: `state` begins anew with each, `carried` goes on.",
            )
        )
        old, new = outer.hold(key, carried=False)
        outside = c.Several(tuple(outer.variables.get(n, c.name(n)) for n in names))
        call = c.Invoke(
            self.owner.kernel("by_segments", "streams"),
            (c.name(f"self.{called}"), outside, self.owner.constant(flow.length, "segment_length"), old),
        )
        outer.steps.append(c.Assign(c.Several((c.name("x"), new), bare=True), call))
        return c.name("x")


def _methods(name: str, flows: list[Flow]) -> frozenset[str]:
    """The methods that a memory needs to be read and written apart; none where it is used whole."""
    found: set[str] = set()
    for node in flows:
        if isinstance(node, ReadApart) and node.name == name:
            found.add("read" if node.written else "recall")
        elif isinstance(node, WriteApart) and node.name == name:
            found |= {"write"} if node.read else {"write", "store"}
    return frozenset(found)


# --------------------------------------------------------------------------- lines, of blocks and models


def kept_in_flows(name: str) -> bool:
    """Whether the methods of blocks and models have a use of their own for a name."""
    return name in ("state", "carried", "block", "before", "after", "_") or reserved(name)


def variables(lines: tuple[Line, ...], names: Namespace) -> dict[str, c.Code]:
    """What the targets of lines are called in the method."""
    targets = dict.fromkeys(line.target for line in lines if line.target)
    return {target: c.name(target if target in names.taken else names.fresh(target)) for target in targets}


def scratch_name(names: Namespace) -> str:
    """A short name for what has none in the spec."""
    return names.fresh(next((name for name in ("x", "y", "h", "u") if name not in names.taken), "y"))


def write_line(line: Line, writer: FlowWriter) -> c.Code:
    """One line of a block or model: where it stands, its steps, its target."""
    if line.span is not None:
        writer.steps.append(c.Comment(trimmed(f"{origin(line.span)}  {spelled(line.span)}")))
    value = writer.write(line.flow)
    if line.target is None:
        return value
    target = writer.variables[line.target]
    if value != target:
        writer.steps.append(c.Assign(target, value))
    return target


def result_name(line: Line, named: dict[str, c.Code], scratch: str) -> str:
    """The variable for what a line computes on its way: its target, unless the line reads that once more."""
    nodes = list(line.flow.walk())
    reads = [node.name for node in nodes if isinstance(node, Variable)]
    once = reads == [line.target] and not any(isinstance(node, Arithmetic | Join | Last) for node in nodes)
    target = named.get(line.target or "")
    return target.text if isinstance(target, c.Atom) and (once or line.target not in reads) else scratch


__all__ = ["BlockWriter", "kept_in_flows", "result_name", "scratch_name", "variables", "write_line"]
