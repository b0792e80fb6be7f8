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
from nldsl.codegen.plan.projections import Fold
from nldsl.resolve.expanded import Adaptive, MemoryInstance, Variable


class ProjectionWriter(MemoryWriter):
    """A memory whose class loops over periods: read everything at the start, write everything at the end."""

    kept = LOCALS | {
        "running",
        "anchor",
        "phase",
        "reads",
        "begin",
        "end",
        "opens",
        "targets",
        "now",
        "moments",
    }

    def __init__(self, instance: MemoryInstance, use: UseWriter) -> None:
        super().__init__(instance, use)
        self.inside = self._inside()
        self.index: dict[int, int] = {}
        self.carried: list[str] = []

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
        core, owner = self.instance.core, self.owner
        self.begin()
        starts = self._starts()
        outer = [name for name in self.flows if name not in self.inside]
        for name in outer:
            self.field(name)
        self._prologue(starts, fold)
        self._loop(fold)
        self.steps.append(c.Assign(c.name("read"), c.call("torch.cat", "reads", dim=2), "[B, H, T, d]"))
        self.end()
        owner.keep("running", "running")
        owner.keep("anchor", "anchor")
        owner.keep("phase", c.call("torch.as_tensor", f"(phase + x.shape[1]) % {core.period}"))
        if fold.moments:
            owner.keep("moments", "moments")
        return self.finish(
            f"Read at the start of each period of {core.period}, then folded over its writes "
            f"({fold.reference})."
        )

    # ------------------------------------------------------------------ starts

    def _starts(self) -> list[str]:
        """The learned starts, in the order of the stacked axis: the memory itself, then its projections."""
        instance, owner = self.instance, self.owner
        heads = owner.number(instance.heads)
        shapes = map_shapes(instance.core.map, instance.key_width, instance.value_width, owner)
        made = fast_starts(owner, heads, shapes)
        names = [owner.module("start", made, (instance.path,))]
        for name, flow in self.flows.items():
            for node in flow.walk():
                if isinstance(node, Adaptive):
                    self.index[id(node)] = len(names)
                    names.append(owner.module(f"{name}_memory", made, (f"{instance.path}.{name}.adaptive",)))
        return names

    def _prologue(self, starts: list[str], fold: Fold) -> None:
        stack = c.Invoke(
            self.owner.kernel("stacked_starts", "self_modifying"),
            (c.Several(tuple(c.name(s) for s in starts)), c.name("x.shape[0]")),
        )
        begin = [
            c.Assign(
                c.Several((c.name("running"), c.name("anchor"), c.name("phase")), bare=True),
                c.Several(
                    (c.name('state["running"]'), c.name('state["anchor"]'), c.name('int(state["phase"])')),
                    bare=True,
                ),
            ),
        ]
        fresh: list[c.Step] = [
            c.Assign(c.name("running"), stack, "each layer [M, B, H, out, in]"),
            c.Assign(
                c.Several((c.name("anchor"), c.name("phase")), bare=True),
                c.Several((c.name("running"), c.name("0")), bare=True),
            ),
        ]
        if fold.moments:
            begin.append(c.Assign(c.name("moments"), c.name('state["moments"]')))
            fresh.append(
                c.Assign(c.name("moments"), c.call("tuple", "torch.zeros_like(layer) for layer in running"))
            )
        self.steps += [c.Nested('if "running" in state', tuple(begin)), c.Nested("else", tuple(fresh))]

    # ------------------------------------------------------------------ the loop over periods

    def _loop(self, fold: Fold) -> None:
        core, owner = self.instance.core, self.owner
        outside = self.steps
        self.steps = [c.Assign(c.name("anchor"), c.name("running if opens else anchor"))]
        if any(
            isinstance(n, Variable) and n.name == "x" for name in self.inside for n in self.flows[name].walk()
        ):
            self.steps.append(c.Assign(c.name("now"), c.name("x[:, begin:end]"), "the tokens of this period"))
        for name in (n for n in self.flows if n in self.inside):
            self.field(name)
        read_after = core.update == 1 and core.read == "after"
        query = self._now("query")
        settings = {
            "residual": literal(core.map.residual and core.map.kind == "mlp"),
            "activation": literal(core.map.activation),
        }
        answer, one = owner.kernel("answer", "self_modifying"), owner.kernel("one_memory", "self_modifying")

        def read(weights: str) -> None:
            self.steps.append(
                c.Comment(
                    f"what the memory answers, {'after' if read_after else 'before'} this period is written"
                )
            )
            value = c.Invoke(answer, (c.call(one, weights, 0), query), tuple(settings.items()))
            self.steps.append(c.Do(c.call("reads.append", value)))

        if not read_after:
            read("anchor")
        value: c.Code = self._now("value")
        if core.target == "self":
            self.steps.append(c.Comment("every memory makes its own target from the value"))
            value = c.Invoke(answer, (c.name("anchor"), value), tuple(settings.items()))
            if core.target_unit:
                value = c.Invoke(owner.kernel("unit", "parts"), (value,))
            self.steps.append(c.Assign(c.name("targets"), value))
            value = c.name("targets")
        elif self.index:
            self.steps.append(
                c.Comment("the memory is taught the value; each projection makes its own target from it")
            )
            others = c.Invoke(owner.kernel("but_the_first", "self_modifying"), (c.name("anchor"),))
            own = c.Invoke(answer, (others, value), tuple(settings.items()))
            value = c.call("torch.cat", c.Several((c.Method(value, "unsqueeze", (c.Atom("0"),)), own)))
            self.steps.append(c.Assign(c.name("targets"), value))
            value = c.name("targets")
        self._fold(fold, value)
        if read_after:
            read("running")
        body = tuple(self.steps)
        self.steps = outside
        for key in self.carried:
            self.steps.append(c.Assign(c.name(key), c.call("state.get", f'"{key}"')))
        self.steps.append(c.Assign(c.name("reads"), c.name("[]"), annotation="list[Tensor]"))
        periods = owner.kernel("periods", "self_modifying")
        self.steps.append(
            c.Nested(f"for begin, end, opens in {periods}(x.shape[1], phase, {core.period})", body)
        )

    def _fold(self, fold: Fold, targets: c.Code) -> None:
        key = self._now("key")
        rate, retain = self._gate("rate"), self._gate("retain")
        named = [(k, setting(self.owner, self.instance.core.map, v)) for k, v in fold.keywords.items()]
        function = self.owner.kernel(fold.function, fold.file)
        arguments = (c.name("running"), c.name("anchor"), key, targets, rate, retain)
        if fold.moments:
            named = [("moments", c.name("moments")), ("momentum", self._gate("momentum")), *named]
            target = c.Several((c.name("running"), c.name("moments")), bare=True)
        else:
            target = c.Several((c.name("running"), c.name("_")), bare=True)
        self.steps.append(c.Assign(target, c.Invoke(function, arguments, tuple(named))))

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
        core = self.instance.core
        answer, pick = (
            self.owner.kernel("answer", "self_modifying"),
            self.owner.kernel("one_memory", "self_modifying"),
        )
        weights = c.call(pick, "anchor", self.index[id(node)])
        named = (
            ("residual", literal(core.map.residual and core.map.kind == "mlp")),
            ("activation", literal(core.map.activation)),
        )
        return writer.assign(c.Invoke(answer, (weights, x), named), shape_words(node.shape))
