"""Generated classes of memories that are read and written apart: one method for each side."""

from __future__ import annotations

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import Namespace, Written, gives, reserved
from nldsl.codegen.emit.memories import MemoryWriter, UseWriter, constructor, docstring, setting
from nldsl.codegen.emit.printer import statement
from nldsl.codegen.plan.engines import Choice, map_settings
from nldsl.resolve.expanded import Flow, MemoryInstance
from nldsl.resolve.sides import sides


class ApartWriter(MemoryWriter):
    """A memory whose class has `write`, `read`, `recall` or `store` in place of `forward`.

    `write` gives the pairs that are written: keys, values and gates.  `read` answers while they are written,
    token by token, and gives the memory after them; `store` only the latter.  `recall` answers at the weights
    as they are.
    """

    def __init__(self, instance: MemoryInstance, use: UseWriter) -> None:
        super().__init__(instance, use)
        self.written, self.asked = sides(instance)
        self.started = self.start()

    def write_apart(self, choice: Choice, methods: frozenset[str]) -> tuple[Written, dict[str, str]]:
        """The class with these methods, and the kernels that it needs."""
        makers = {"write": self._write, "store": self._store, "recall": self._recall, "read": self._read}
        made = [
            step for name, maker in makers.items() if name in methods for step in (c.Blank(), maker(choice))
        ]
        owner, instance = self.owner, self.instance
        parameters = tuple(p for p in owner.values if p in owner.used)
        engine = choice.engine
        summary = f"{engine.name[0].upper()}{engine.name[1:]} ({engine.reference}), read and written apart."
        body = (*constructor(owner, parameters), *made, *self.methods)
        step = c.Class(instance.name, ("nn.Module",), body, docstring(instance.declared, summary))
        return Written(instance.name, parameters, True, step, owner.own, owner.children), owner.kernels

    # ------------------------------------------------------------------ one side

    def _side(self, flows: dict[str, Flow]) -> None:
        """Begin a method, and write these pipelines."""
        self.steps = [c.Assign(c.name("state"), c.name("state or {}"))]
        self.owner.states = []
        self.done = set()
        self.names = Namespace(
            frozenset(self.local.values()), kept=lambda name: name in self.kept or reserved(name)
        )
        self.begin(flows)
        for name in flows:
            if name in self.flows:
                self.field(name)

    def _method(self, name: str, takes: tuple[str, ...], gives_: str, say: str) -> c.Function:
        return c.Function(name, ("self", *takes), gives_, tuple(self.steps), say)

    def _write(self, choice: Choice) -> c.Step:
        self._side(self.written)
        inputs = [("key", c.name("key")), ("value", c.name("value"))]
        inputs += [(name, self._input(name)) for name in choice.inputs]
        pairs = c.name("pairs")
        self.steps.append(c.Assign(pairs, c.Mapping(tuple(inputs))))
        self.steps += gives(pairs, self.owner.state())
        say = "What is written for `x` `[B, T, d]`: keys, values and gates; and the new state of this side."
        return self._method("write", ("x: Tensor", "state: State | None = None"), "tuple[State, State]", say)

    def _store(self, choice: Choice) -> c.Step:
        self.steps = []
        call = self._engine(choice, c.name('pairs["key"]'))
        self.steps.append(c.Assign(c.Several((c.name("_"), c.name("core")), bare=True), call))
        self.steps.append(c.Return(c.name("core")))
        say = "The memory after `pairs`; `core` is the one before them."
        return self._method("store", ("pairs: State", "core: State | None"), "State", say)

    def _read(self, choice: Choice) -> c.Step:
        self._side(self.asked)
        call = self._engine(choice, c.name("query"))
        self.steps.append(
            c.Assign(c.Several((c.name("read"), c.name("core")), bare=True), call, "[B, H, T, d]")
        )
        self.end()
        state = self.owner.state()
        both = c.Return(c.Several((c.name("y"), c.name("core"), state), bare=True))
        if len(statement(both, 8)) == 1:
            self.steps.append(both)
        else:
            self.steps.append(c.Assign(c.name("state"), state))
            self.steps.append(c.Return(c.Several((c.name("y"), c.name("core"), c.name("state")), bare=True)))
        say = (
            "What the memory answers to `x` `[B, T, d]` while `pairs` of the same tokens are written; "
            "the memory after them; and the new state of this side."
        )
        takes = ("x: Tensor", "pairs: State", "core: State | None", "state: State | None = None")
        return self._method("read", takes, "tuple[Tensor, State, State]", say)

    def _recall(self, choice: Choice) -> c.Step:
        self._side(self.asked)
        core, one = self.instance.core, self.instance.core.map
        given: list[c.Code] = [c.name("query"), c.name("core")]
        if self.started is not None:
            given.append(self.started)
        named: list[tuple[str, c.Code]] = []
        if one.kind != "matrix":
            named.append(("map", setting(self.owner, one, map_settings(core))))
        if int(self.instance.value_width) != int(self.instance.key_width):
            named.append(("width", self.owner.constant(self.instance.value_width, "value_width")))
        if core.update > 1 or core.read == "boundary":
            named.append(("boundary", c.name("True")))
        if core.normalise:
            named.append(("normalise", c.name("True")))
        kernel = self.owner.kernel("recall", "recall")
        call = c.Invoke(kernel, tuple(given), tuple(named))
        self.steps.append(c.Assign(c.name("read"), call, "[B, H, T, d]"))
        self.end()
        self.steps += gives(c.name("y"), self.owner.state())
        say = "What the memory answers to `x` `[B, T, d]` as it is in `core`; and the new state of this side."
        takes = ("x: Tensor", "core: State | None", "state: State | None = None")
        return self._method("recall", takes, "tuple[Tensor, State]", say)

    def _engine(self, choice: Choice, query: c.Code) -> c.Code:
        """The call of the engine with the pairs of a write."""
        core = self.instance.core
        named: list[tuple[str, c.Code]] = []
        if self.started is not None:
            named.append(("start", self.started))
        named += [(k, self._setting(k, v)) for k, v in choice.keywords.items()]
        named.append(("state", c.name("core")))
        function = self.owner.kernel(choice.engine.function, choice.engine.file)
        if core.writes == 1:
            return c.Invoke(function, (query, c.name("**pairs")), tuple(named))
        named.append(("writes", c.Atom(str(core.writes))))
        several = self.owner.kernel("several", "several")
        return c.Invoke(several, (c.name(function), query, c.name("**pairs")), tuple(named))
