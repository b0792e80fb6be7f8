"""Generated classes of chains: levels one after the other, or side by side with what makes them one."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import ClassWriter, Namespace, Written, gives, origin, reserved
from nldsl.codegen.emit.flows import mlp, swiglu
from nldsl.codegen.emit.memories import docstring, finished
from nldsl.codegen.emit.pretrained import of_feed_forward
from nldsl.codegen.emit.sequence import learns_within, task_level
from nldsl.resolve.expanded import ChainInstance, ChainLevel, MemoryInstance, Num

Part = Callable[[MemoryInstance], Written]
"""The class of a memory that stands in a chain."""
Construct = Callable[[ClassWriter, MemoryInstance, Written], c.Code]
"""How that class is made with the memory's arguments."""

SUMMARIES = {
    "sequential": "with clocks of their own, one after the other",
    "nested": "with clocks of their own, one after the other; each begins anew with the next slower",
    "independent": "with clocks of their own, side by side",
}


def in_words(chain: ChainInstance) -> str:
    """What a chain is, in a few words: whose weights, and how its levels stand."""
    within = any(learns_within(level) for level in chain.levels)
    return f"weights {'of each sequence ' if within else ''}{SUMMARIES[chain.variant]}"


class ChainWriter:
    """Writes the class of one chain."""

    def __init__(self, instance: ChainInstance, part: Part, construct: Construct) -> None:
        self.instance, self.part, self.construct = instance, part, construct
        self.owner = ClassWriter(instance.arguments)
        self.names = Namespace(frozenset({"x", "state", "answers"}), kept=reserved)
        self.steps: list[c.Step] = []

    def write(self) -> tuple[Written, dict[str, str]]:
        """The class and the kernels it needs."""
        if self.instance.variant == "independent":
            result = self._combined([self._level(level) for level in self.instance.levels])
        else:
            for level in self.instance.levels:
                answer = self._level(level)
                if answer != c.name("x"):
                    self.steps.append(c.Assign(c.name("x"), answer))
            result = c.name("x")
        stateful = bool(self.owner.states)
        if stateful:
            self.steps.insert(0, c.Assign(c.name("state"), c.name("state or {}")))
            self.steps += gives(result, self.owner.state())
        else:
            self.steps.append(c.Return(result))
        said = in_words(self.instance)
        text = docstring(self.instance.declared, f"{said[0].upper()}{said[1:]}.")
        return finished(self.owner, self.instance.name, text, self.steps, stateful=stateful)

    def _level(self, level: ChainLevel) -> c.Code:
        """What a level gives for `x`; of a memory with its new state, as a variable."""
        words = c.Comment(f"{origin(level.span)}  {clock_words(level)}")
        if level.memory is None:
            self.owner.modules.append(words)
            used = dict(self.owner.kernels)
            made = level_module(self.owner, level, self.instance.width)
            if learns_within(level):
                made = task_level(self.owner, made, level, self.instance)
                self.owner.kernels |= used  # a level beside it may stand still
            module = self.owner.module(level.name, made, (level.path,))
            if level.map.kind == "swiglu":
                self.owner.customary += of_feed_forward(module)
            return c.Invoke(module, (c.name("x"),))
        part = self.part(level.memory)
        self.owner.modules.append(words)
        module = self.owner.module(level.name, self.construct(self.owner, level.memory, part))
        attribute = module.removeprefix("self.")
        self.owner.children.append((attribute, part))
        alone = self.instance.variant == "independent"
        answer = c.name(self.names.fresh(level.name)) if alone else c.name("x")
        state = c.name(self.names.fresh(f"{attribute.rstrip('_')}_state"))
        self.owner.keep(attribute, state)
        value = c.Invoke(module, (c.name("x"), c.call("state.get", f'"{attribute}"')))
        target = c.Assign(c.Several((answer, state), bare=True), value)
        self.steps.append(target)
        return answer

    # ------------------------------------------------------------------ levels side by side

    def _combined(self, answers: list[c.Code]) -> c.Code:
        """The answers of independent levels as one (Nested Learning, Eq. 74)."""
        count, combine = len(answers), self.instance.combine
        if combine in ("sum", "mean"):
            total = answers[0]
            for answer in answers[1:]:
                total = c.Infix("+", total, answer)
            return total if combine == "sum" else c.Infix("/", total, c.Atom(str(count)))
        stacked = c.call("torch.stack", c.Several(tuple(answers)), dim=-1)
        self.steps.append(c.Assign(c.name("answers"), stacked, "[B, T, d, levels]"))
        path = f"{self.instance.path}.combine"
        if combine == "gated":
            made = c.call("nn.Linear", self.owner.number(self.instance.width), count, bias="False")
            gate = c.Invoke(self.owner.module("gate", made, (path,)), (c.name("x"),))
            shares = c.name(self.names.fresh("shares"))
            self.steps.append(c.Assign(shares, c.Method(gate, "softmax", (c.Atom("-1"),)), "[B, T, levels]"))
            column = c.Indexed(shares, "..., None")
            return c.Method(c.Infix("@", c.name("answers"), column), "squeeze", (c.Atom("-1"),))
        if combine == "weighted softmax":
            made = c.call("nn.Parameter", c.call("torch.zeros", count))
            weights: c.Code = c.Method(
                c.name(self.owner.module("level_gain", made, (path,))), "softmax", (c.Atom("0"),)
            )
        else:
            made = c.call("nn.Parameter", c.call("torch.full", f"({count},)", f"1 / {count}"))
            weights = c.name(self.owner.module("level_gain", made, (path,)))
        return c.Infix("@", c.name("answers"), weights)


def clock_words(level: ChainLevel) -> str:
    """When the weights of a level change, and when they return to their start."""
    words = [str(level.clock)]
    if level.teacher is not None:
        words.append(f"starts as {'a ' if level.start == 'copy of' else ''}{level.start} {level.teacher}")
    if level.reset_with is not None:
        words.append(f"returns there with {level.reset_with}")
    elif level.reset is not None:
        words.append(f"returns there {level.reset}")
    return ", ".join(words)


def level_module(owner: ClassWriter, level: ChainLevel, width: Num) -> c.Code:
    """The constructor of what a level computes, from `width` features to as many."""
    one = level.map
    if one.kind == "matrix":
        return c.call("nn.Linear", owner.number(width), owner.number(width), bias="False")
    arguments: dict[str, Num | str | bool] = {
        "depth": Num(one.depth),
        "residual": one.residual,
        "norm": one.norm,
        "activation": one.activation,
    }
    if one.hidden is not None:
        arguments["hidden"] = one.hidden
    return swiglu(owner, width, arguments) if one.kind == "swiglu" else mlp(owner, width, arguments)
