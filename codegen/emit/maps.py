"""A block as the map of a memory: a function of its weights, written into the class of the memory."""

from __future__ import annotations

import re

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import ClassWriter, Namespace, origin, reserved, snake, spelled, trimmed
from nldsl.codegen.emit.flows import MAX_NESTING, depth, least
from nldsl.codegen.emit.numbers import literal
from nldsl.codegen.emit.printer import flat
from nldsl.resolve.expanded import (
    Apply,
    Arithmetic,
    BlockInstance,
    Constant,
    Flow,
    Map,
    Num,
    Repeat,
    Use,
    Variable,
)
from nldsl.resolve.maps import inlined

_FUNCTIONS = {
    "silu": "F.silu",
    "gelu": "F.gelu",
    "relu": "F.relu",
    "elu": "F.elu",
    "tanh": "torch.tanh",
    "exp": "torch.exp",
    "sigmoid": "torch.sigmoid",
    "softplus": "F.softplus",
}


class MapWriter:
    """Writes the function of one block."""

    def __init__(self, owner: ClassWriter, block: BlockInstance) -> None:
        self.owner, self.block = owner, block
        self.inlined = inlined(block)
        self.names = Namespace(frozenset({"x", "weights"}), kept=reserved)
        self.steps: list[c.Step] = []

    def write(self, name: str) -> tuple[c.Step, ...]:
        """A static method `name(weights, x)`."""
        result = self._block(self.block, "", c.name("x"), "x")
        self.steps.append(c.Return(result))
        said = f"The block `{self.block.name}` with these weights, `x` `[..., d]` of one head."
        parameters = ("weights: dict[str, Any]", "x: Tensor")
        body = c.Function(name, parameters, "Tensor", tuple(self.steps), said)
        return c.Verbatim("    @staticmethod"), body

    def _block(self, block: BlockInstance, prefix: str, given: c.Code, own: str) -> c.Code:
        """All lines of a block; `own` is what its `x` is called here."""
        variables: dict[str, c.Code] = {"x": given}
        last = given
        for line in block.lines:
            if line.span is not None:
                self.steps.append(c.Comment(trimmed(f"{origin(line.span)}  {spelled(line.span)}")))
            scratch = own if line.target in ("x", None) else str(line.target)
            last = self._flow(line.flow, prefix, variables, scratch)
            if line.target is None:
                continue
            target = own if line.target == "x" else self.names.fresh(line.target)
            self.steps.append(c.Assign(c.name(target), last))
            variables[line.target] = c.name(target)
        return variables["x"] if any(line.target == "x" for line in block.lines) else last

    # ------------------------------------------------------------------ pipelines

    def _flow(self, flow: Flow, prefix: str, variables: dict[str, c.Code], scratch: str) -> c.Code:
        match flow:
            case Variable(name=name):
                return variables[name]
            case Constant(number=number):
                return literal(number.value)
            case Arithmetic(op=op, left=left, right=right):
                one = self._short(self._flow(left, prefix, variables, scratch), scratch)
                other = self._short(self._flow(right, prefix, variables, scratch), scratch)
                return c.Infix({"^": "**"}.get(op, op), one, other)
            case Apply():
                x = self._flow(flow.input, prefix, variables, scratch)
                return self._stage(flow, self._kept(x, scratch), prefix, scratch)
            case Use(instance=BlockInstance() as inner):
                x = self._flow(flow.input, prefix, variables, scratch)
                return self._copy(inner, self.inlined.copies[prefix, id(flow), 0], x)
            case Repeat():
                x = self._flow(flow.input, prefix, variables, scratch)
                for copy in range(int(flow.count) * len(flow.instances)):
                    inner = flow.instances[copy % len(flow.instances)]
                    assert isinstance(inner, BlockInstance)
                    x = self._copy(inner, self.inlined.copies[prefix, id(flow), copy], x)
                return x
            case _:
                raise TypeError(f"no such flow in a map: {type(flow).__name__}")

    def _copy(self, block: BlockInstance, prefix: str, x: c.Code) -> c.Code:
        """A block inside: its lines, on a variable of its own."""
        own = self.names.fresh("y")
        self.steps.append(c.Assign(c.name(own), x))
        return self._block(block, prefix, c.name(own), own)

    def _kept(self, value: c.Code, scratch: str) -> c.Code:
        """A value under a name, when its nesting grows too deep to read."""
        return value if depth(value) < MAX_NESTING else self._named(value, scratch)

    def _short(self, value: c.Code, scratch: str) -> c.Code:
        """A side of an operation: a name, unless it is short enough for its line."""
        return value if depth(value) < MAX_NESTING - 1 else self._named(value, scratch)

    def _named(self, value: c.Code, scratch: str) -> c.Code:
        """A value that is read several times, under a name."""
        if isinstance(value, c.Atom):
            return value
        target = c.name(self.names.fresh(re.sub(r"_\d+$", "", scratch)))
        self.steps.append(c.Assign(target, value))
        return target

    # ------------------------------------------------------------------ stages

    def _stage(self, flow: Apply, x: c.Code, prefix: str, scratch: str) -> c.Code:
        names = [weight.name for weight in self.inlined.weights[prefix, id(flow)]]
        weights: list[c.Code] = [c.Indexed(c.name("weights"), f'"{name}"') for name in names]
        match flow.primitive:
            case "linear":
                value = self._linear(x, weights[0])
                return c.Infix("+", self._short(value, scratch), weights[1]) if len(weights) > 1 else value
            case "rmsnorm":
                return c.Infix("*", self._normed("rms_normed", x, c.Atom(least(flow))), weights[0])
            case "layernorm":
                value = self._normed("layer_normed", x, c.Atom(least(flow)))
                return c.Infix("+", c.Infix("*", value, weights[0]), weights[1])
            case "learned":
                return weights[0] if isinstance(flow.input, Constant) else c.Infix("*", x, weights[0])
            case "scale":
                by = flow.arguments["by"]
                assert isinstance(by, Num)
                return c.Infix("*", x, literal(by.value))
            case "unit":
                return c.call("F.normalize", x, dim=-1, eps="1e-6")
            case "swiglu":
                x = self._named(x, scratch)
                inner = c.Infix(
                    "*", c.call("F.silu", self._linear(x, weights[0])), self._linear(x, weights[1])
                )
                return self._linear(inner, weights[2])
            case "mlp":
                return self._mlp(flow, x, weights, scratch)
            case name:
                return c.call(_FUNCTIONS[name], c.Infix("+", x, weights[0]) if weights else x)

    def _mlp(self, flow: Apply, x: c.Code, weights: list[c.Code], scratch: str) -> c.Code:
        activation = _FUNCTIONS[str(flow.arguments.get("activation", "gelu"))]
        whole = value = self._named(x, scratch)
        if flow.arguments.get("norm"):
            finest = c.call("torch.finfo", c.name(f"{flat(whole)}.dtype"))
            value = self._normed("rms_normed", whole, c.name(f"{flat(finest)}.eps"))
            value, weights = c.Infix("*", value, weights[0]), weights[1:]
        for n, weight in enumerate(weights):
            value = self._linear(self._kept(c.call(activation, value) if n else value, scratch), weight)
        return c.Infix("+", whole, self._short(value, scratch)) if flow.arguments.get("residual") else value

    def _linear(self, x: c.Code, weight: c.Code) -> c.Code:
        return c.Invoke(self.owner.kernel("fast_linear", "maps"), (x, weight))

    def _normed(self, kernel: str, x: c.Code, eps: c.Code) -> c.Code:
        return c.Invoke(self.owner.kernel(kernel, "maps"), (x, eps))


def block_start(owner: ClassWriter, one: Map, heads: c.Code) -> c.Code:
    """The learned start of a block's weights, `[heads, ...]` by name."""
    items: list[tuple[str, c.Code]] = []
    for weight in one.fast:
        sizes = [owner.number(size) for size in weight.shape]
        if weight.begins is None:
            items.append((weight.name, c.Invoke(owner.kernel("fast_start", "parts"), (heads, *sizes))))
            continue
        filled = {0.0: "torch.zeros", 1.0: "torch.ones"}.get(weight.begins)
        value = (
            c.call(filled, heads, *sizes)
            if filled
            else c.call("torch.full", c.Several((heads, *sizes)), literal(float(f"{weight.begins:.6g}")))
        )
        items.append((weight.name, c.call("nn.Parameter", value)))
    return c.Invoke("nn.ParameterDict", (c.Mapping(tuple(items)),))


def block_zeros(one: Map, heads: c.Code) -> c.Code:
    """Weights of zeros by name."""
    return c.Mapping(
        tuple((w.name, c.call("x.new_zeros", heads, *(int(size) for size in w.shape))) for w in one.fast)
    )


def method_name(block: BlockInstance, names: Namespace) -> str:
    """What the function of a block is called in a class."""
    return names.fresh(f"{snake(block.name)}_map")
