"""Generated classes of memories that write their own projections (Nested Learning, section 8)."""

from __future__ import annotations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import Written
from nldsl.codegen.emit.flows import FlowWriter
from nldsl.codegen.emit.memories import (
    LOCALS,
    MemoryWriter,
    UseWriter,
    fast_starts,
    literal,
    map_shapes,
    setting,
    shape_words,
)
from nldsl.codegen.emit.printer import flat
from nldsl.codegen.plan.projections import Fold, Group, cycle, groups
from nldsl.resolve.expanded import Adaptive, MemoryInstance, Variable

OWN = ("running", "anchor", "moments", "targets", "keys")  # of each group, with its name behind


class ProjectionWriter(MemoryWriter):
    """A memory whose class loops over periods: read everything at the start, write everything at the end."""

    kept = LOCALS | {*OWN, "phase", "reads", "begin", "end", "opens", "now"}

    def __init__(self, instance: MemoryInstance, use: UseWriter) -> None:
        super().__init__(instance, use)
        self.inside = self._inside()
        self.carried: list[str] = []
        self.groups: tuple[Group, ...] = ()
        self.place: dict[int, tuple[Group, int]] = {}  # of each adaptive node
        self.own: tuple[Group, int] | None = None  # of the memory itself
        self.answers: dict[int, c.Code] = {}

    def _inside(self) -> set[str]:
        """Fields that depend on fast weights: they are computed in every period."""
        inside: set[str] = set()
        changed = True
        while changed:
            changed = False
            for name, flow in self.flows.items():
                depends = any(
                    isinstance(n, Adaptive) or (isinstance(n, Variable) and n.name in inside)
                    for n in flow.walk()
                )
                depends |= (
                    flow.shape.layout in ("scalar", "per head") and "key" in inside
                )  # they take its shape
                if depends and name not in inside:
                    inside.add(name)
                    changed = True
        return inside

    def write_projections(self, fold: Fold) -> tuple[Written, dict[str, str]]:
        """The whole class."""
        owner = self.owner
        self.groups = groups(self.instance, fold.lowering)
        self.kept = self.kept | {f"{name}_of_{g.name}" for g in self.groups for name in OWN}
        self.begin(self.flows)
        starts = self._starts()
        outer = [name for name in self.flows if name not in self.inside]
        for name in outer:
            self.field(name)
        self._prologue(starts)
        self._loop()
        self.steps.append(c.Assign(c.name("read"), c.call("torch.cat", "reads", dim=2), "[B, H, T, d]"))
        self.end()
        for group in self.groups:
            owner.keep(_of("running", group), _of("running", group))
            owner.keep(_of("anchor", group), _of("anchor", group))
            if group.fold.moments:
                owner.keep(_of("moments", group), _of("moments", group))
        owner.keep("phase", c.call("torch.as_tensor", f"(phase + x.shape[1]) % {cycle(self.instance)}"))
        clocks = sorted({group.period for group in self.groups})
        period = f"each period of {self._piece}"
        if len(clocks) > 1:
            period = f"their own periods ({', '.join(map(str, clocks[:-1]))} and {clocks[-1]} tokens)"
        return self.finish(
            f"Read at the start of {period}, then folded over its writes ({self.groups[0].fold.reference})."
        )

    @property
    def _piece(self) -> int:
        """Tokens between two points at which some weights change."""
        return min(group.period for group in self.groups)

    # ------------------------------------------------------------------ starts

    def _starts(self) -> dict[str, list[str]]:
        """The learned starts of every group, in the order of its stacked axis."""
        instance, owner = self.instance, self.owner
        heads = owner.number(instance.heads)
        made = fast_starts(
            owner, heads, map_shapes(instance.core.map, instance.key_width, instance.value_width, owner)
        )
        names = {-1: owner.module("start", made, (instance.path,))}
        nodes = [
            (name, node)
            for name, flow in self.flows.items()
            for node in flow.walk()
            if isinstance(node, Adaptive)
        ]
        for number, (name, node) in enumerate(nodes):
            width = node.shape.width
            made = fast_starts(owner, heads, map_shapes(node.map, width, width, owner))
            names[number] = owner.module(f"{name}_memory", made, (f"{instance.path}.{name}.adaptive",))
        order = {id(node): number for number, (_, node) in enumerate(instance.adaptives())}
        starts: dict[str, list[str]] = {}
        for group in self.groups:
            for index, slot in enumerate(group.slots):
                number = -1 if slot.node is None else order[id(slot.node)]
                starts.setdefault(group.name, []).append(names[number])
                if slot.node is None:
                    self.own = (group, index)
                else:
                    self.place[id(nodes[number][1])] = (group, index)
        return starts

    def _prologue(self, starts: dict[str, list[str]]) -> None:
        given, fresh = [], []
        for group in self.groups:
            own = [_of(name, group) for name in ("running", "anchor")]
            held = [f'state["{name}"]' for name in own]
            stack = c.Invoke(
                self.owner.kernel("stacked_starts", "self_modifying"),
                (c.Several(tuple(c.name(s) for s in starts[group.name])), c.name("x.shape[0]")),
            )
            first = group is self.groups[0]
            given.append(
                _several(
                    [*own, *(["phase"] if first else [])],
                    [*held, *(['int(state["phase"])'] if first else [])],
                )
            )
            fresh.append(c.Assign(c.name(own[0]), stack, "each layer [M, B, H, out, in]"))
            fresh.append(
                _several([own[1], *(["phase"] if first else [])], [own[0], *(["0"] if first else [])])
            )
            if group.fold.moments:
                moments = _of("moments", group)
                given.append(c.Assign(c.name(moments), c.name(f'state["{moments}"]')))
                zeros = c.call("tuple", f"torch.zeros_like(layer) for layer in {own[0]}")
                fresh.append(c.Assign(c.name(moments), zeros))
        self.steps += [c.Nested('if "running" in state', tuple(given)), c.Nested("else", tuple(fresh))]

    # ------------------------------------------------------------------ the loop over periods

    def _loop(self) -> None:
        core, owner = self.instance.core, self.owner
        outside = self.steps
        self.steps = [self._anchored(group) for group in self.groups]
        if any(
            isinstance(n, Variable) and n.name == "x" for name in self.inside for n in self.flows[name].walk()
        ):
            self.steps.append(c.Assign(c.name("now"), c.name("x[:, begin:end]"), "the tokens of this period"))
        for name in (n for n in self.flows if n in self.inside):
            self.field(name)
        read_after = core.update == 1 and core.read == "after"
        if not read_after:
            self._read("anchor", "before")
        for group in self.groups:
            self._fold(group, self._targets(group))
        if read_after:
            self._read("running", "after")
        if core.gradient_tokens is not None:
            self._cut(core.gradient_tokens)
        body = tuple(self.steps)
        self.steps = outside
        for key in self.carried:
            self.steps.append(c.Assign(c.name(key), c.call("state.get", f'"{key}"')))
        self.steps.append(c.Assign(c.name("reads"), c.name("[]"), annotation="list[Tensor]"))
        periods = owner.kernel("periods", "self_modifying")
        every = all(group.period != self._piece for group in self.groups)
        opens = "_" if every else "opens"
        phase = "phase" if cycle(self.instance) == self._piece else f"phase % {self._piece}"
        loop = f"for begin, end, {opens} in {periods}(x.shape[1], {phase}, {self._piece})"
        self.steps.append(c.Nested(loop, body))

    def _anchored(self, group: Group) -> c.Step:
        """What is read and where gradients are taken: the weights at the start of the group's period."""
        running, anchor = _of("running", group), _of("anchor", group)
        opens = "opens" if group.period == self._piece else f"(phase + begin) % {group.period} == 0"
        return c.Assign(c.name(anchor), c.name(f"{running} if {opens} else {anchor}"))

    def _read(self, weights: str, when: str) -> None:
        self.steps.append(c.Comment(f"what the memory answers, {when} this period is written"))
        assert self.own is not None
        group, index = self.own
        value = self._answered(group, self._one(weights, group, index), self._now("query"))
        self.steps.append(c.Do(c.call("reads.append", value)))

    def _answered(self, group: Group, weights: c.Code, z: c.Code) -> c.Code:
        named = (
            ("residual", literal(group.map.residual and group.map.kind == "mlp")),
            ("activation", literal(group.map.activation)),
        )
        return c.Invoke(self.owner.kernel("answer", "self_modifying"), (weights, z), named)

    def _one(self, weights: str, group: Group, index: int) -> c.Code:
        return c.call(self.owner.kernel("one_memory", "self_modifying"), _of(weights, group), index)

    def _targets(self, group: Group) -> c.Code:
        """What the group's memories are taught, stacked where it differs."""
        value, taught, size = self._now("value"), group.taught, len(group.slots)
        if taught == size:
            return value
        anchor = c.name(_of("anchor", group))
        if taught:
            anchor = c.Invoke(self.owner.kernel("all_but", "self_modifying"), (anchor, c.Atom(str(taught))))
        self.steps.append(c.Comment(_who_teaches(group)))
        own = self._answered(group, anchor, value)
        if self.instance.core.target_unit:
            own = c.Invoke(self.owner.kernel("unit", "parts"), (own,))
        if taught:
            given = c.Method(value, "unsqueeze", (c.Atom("0"),))
            if taught > 1:
                given = c.Method(given, "expand", (c.Atom(str(taught)), *[c.Atom("-1")] * 4))
            own = c.call("torch.cat", c.Several((given, own)))
        target = c.name(_of("targets", group))
        self.steps.append(c.Assign(target, own))
        return target

    def _keys(self, group: Group) -> c.Code:
        """The key of the writes: the memory's, or what each projection answered itself (Eq. 79-82)."""
        if group.key == "shared":
            return self._now("key")
        own = {index: self.answers[node] for node, (g, index) in self.place.items() if g is group}
        keys: c.Code = c.call("torch.stack", c.Several(tuple(own[index] for index in sorted(own))))
        if group.key != "own":
            keys = c.Invoke(self.owner.kernel("unit", "parts"), (keys,))
        target = c.name(_of("keys", group))
        self.steps.append(c.Assign(target, keys, "[M, B, H, T, d]"))
        return target

    def _fold(self, group: Group, targets: c.Code) -> None:
        core, fold, owner = self.instance.core, group.fold, self.owner
        running, moments = c.name(_of("running", group)), c.name(_of("moments", group))
        key, rate, retain = self._keys(group), self._gate("rate"), self._gate("retain")
        anchor: c.Code = c.name(_of("anchor", group))
        if group.period == 1 and core.anchor == "retained":  # gradients at what retention leaves
            anchor = c.Invoke(owner.kernel("faded", "self_modifying"), (running, retain))
        if core.gradient == "first_order":
            anchor = c.Invoke(owner.kernel("constants", "self_modifying"), (anchor,))
        named = [(k, setting(owner, group.map, v)) for k, v in fold.keywords.items()]
        if fold.moments:
            named = [("moments", moments), ("momentum", self._gate("momentum")), *named]
        arguments = (running, anchor, key, targets, rate, retain)
        value: c.Code = c.Invoke(owner.kernel(fold.function, fold.file), arguments, tuple(named))
        if core.gradient != "stop":
            target = c.Several((running, moments if fold.moments else c.name("_")), bare=True)
            self.steps.append(c.Assign(target, value))
            return
        folded = c.name(self.names.fresh("folded"))
        target = c.Several((folded, moments if fold.moments else c.name("_")), bare=True)
        self.steps.append(c.Assign(target, value))
        self.steps.append(
            c.Assign(
                running,
                c.Invoke(owner.kernel("only_faded", "self_modifying"), (running, folded, retain)),
                "what was written is a constant",
            )
        )
        if fold.moments:
            self.steps.append(_without_a_past(moments))

    def _cut(self, tokens: int) -> None:
        """Weights go on as values without a past after every so many tokens."""
        constants = self.owner.kernel("constants", "self_modifying")
        steps: list[c.Step] = []
        for group in self.groups:
            running = c.name(_of("running", group))
            steps.append(c.Assign(running, c.Invoke(constants, (running,))))
            if group.fold.moments:
                steps.append(_without_a_past(c.name(_of("moments", group))))
        self.steps.append(c.Nested(f"if (phase + end) % {tokens} == 0", tuple(steps)))

    def _gate(self, name: str) -> c.Code:
        if name not in self.flows:
            return c.call("torch.ones_like", c.Indexed(self._now("key"), "..., 0"))
        return self._now(name)

    def _now(self, name: str) -> c.Code:
        """A field of the tokens of this period."""
        return (
            c.name(self.local[name])
            if name in self.inside
            else c.Indexed(c.name(self.local[name]), ":, :, begin:end")
        )

    def field(self, name: str) -> None:
        if name not in self.inside or name in self.done:
            super().field(name)
            return
        self.done.add(name)
        flow = self.flows[name]
        for node in flow.walk():
            if isinstance(node, Variable) and node.name in self.inside:
                self.field(node.name)
        self.mention(name)
        writer = FlowWriter(
            self.owner,
            self.names,
            self.steps,
            name,
            self.local[name],
            f"{self.instance.path}.projections",
            self.use,
            self._adaptive,
            self.of_heads,
            self._variables(),
            looped=True,
            carried=self.carried,
            position="position",
        )
        self.assign(name, flow, writer)

    def _variables(self) -> dict[str, c.Code]:
        hoisted: dict[str, c.Code] = {**self.variables(), "x": c.name("now")}
        for name, flow in self.flows.items():
            if name not in self.inside:
                index = ":, :, begin:end" if flow.shape.layout in ("heads", "gate") else ":, begin:end"
                hoisted[name] = c.Indexed(c.name(self.local[name]), index)
        return hoisted

    def _adaptive(self, writer: FlowWriter, node: Adaptive, x: c.Code) -> c.Code:
        group, index = self.place[id(node)]
        answer = self._answered(group, self._one("anchor", group, index), x)
        if group.key == "shared":
            return writer.assign(answer, shape_words(node.shape))
        name = c.name(self.names.fresh(f"{writer.prefix}_own"))  # it stays: it is the key of its write
        self.steps.append(c.Assign(name, answer, shape_words(node.shape)))
        self.answers[id(node)] = name
        return name


def _of(name: str, group: Group) -> str:
    """What a group's `running`, `anchor` and so on are called: the memory's own have the bare names."""
    return f"{name}_of_{group.name}" if group.name else name


def _who_teaches(group: Group) -> str:
    """A comment on targets that memories make themselves."""
    if group.name:
        return f"the target that the {group.name.replace('_and_', ' and the ')} makes itself"
    if group.taught:
        return "the memory is taught the value; each projection makes its own target from it"
    return "every memory makes its own target from the value"


def _without_a_past(moments: c.Code) -> c.Step:
    """The momentum as values; a fold without momentum would hand back `None`."""
    return c.Assign(moments, c.call("tuple", f"layer.detach() for layer in {flat(moments)} or ()"))


def _several(targets: list[str], values: list[str]) -> c.Step:
    """`a, b = c, d`, or `a = c`."""
    if len(targets) == 1:
        return c.Assign(c.name(targets[0]), c.name(values[0]))
    return c.Assign(
        c.Several(tuple(c.name(t) for t in targets), bare=True),
        c.Several(tuple(c.name(v) for v in values), bare=True),
    )
