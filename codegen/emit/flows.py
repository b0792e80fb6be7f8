"""Flows as code: pipelines become nested calls, with a statement where state is carried or nesting grows
deep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.classes import ClassWriter, Namespace
from nldsl.codegen.emit.printer import flat
from nldsl.document import expr as e
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    Arithmetic,
    Constant,
    Flow,
    Join,
    Last,
    Num,
    ReadApart,
    Repeat,
    Segments,
    Shape,
    Use,
    Variable,
    WriteApart,
)

KEEPS = ("retain", "momentum")  # gates whose products over many tokens count
POINTWISE = ("exp", "sigmoid", "softplus", "tanh", "silu", "gelu", "relu", "elu")
MAX_NESTING = 3
_SHORT = {"rmsnorm": "norm", "layernorm": "norm"}


@dataclass(slots=True)
class FlowWriter:
    """Writes flows into `steps` of one method.

    `prefix` begins the names of modules, `result` is the variable that intermediate values are kept in,
    `states` says where running state comes from (`state.get("...")`, or a local inside a loop).
    """

    owner: ClassWriter
    names: Namespace
    steps: list[c.Step]
    prefix: str
    result: str
    path: str
    use: Callable[[FlowWriter, Use | Repeat, c.Code], c.Code]
    adaptive: Callable[[FlowWriter, Adaptive, c.Code], c.Code] | None = None
    per_head: Callable[[str, Flow], c.Code] | None = None
    variables: dict[str, c.Code] = field(default_factory=dict)
    looped: bool = False
    carried: list[str] = field(default_factory=list)
    embedding: list[str] = field(default_factory=list)
    position: str = ""
    streams: Callable[[FlowWriter, Flow], c.Code] | None = None
    shared: Callable[[FlowWriter, Use, c.Code], c.Code] | None = None

    # ------------------------------------------------------------------ expressions

    def write(self, flow: Flow) -> c.Code:
        """Code for a flow; statements it needs are appended to `steps`."""
        value = self.once(flow)
        return self._at_every_token(value) if timeless(flow) else value

    def _at_every_token(self, value: c.Code) -> c.Code:
        """Learned numbers `[d]` as features `[B, T, d]`."""
        x = flat(self.variables.get("x", c.name("x")))
        return c.Method(value, "expand", (c.Atom(f"*{x}.shape[:2]"), c.Atom("-1")))

    def once(self, flow: Flow) -> c.Code:
        """Code for a flow; what is the same at every token is `[d]`, which meets features by broadcasting."""
        match flow:
            case Variable(name=name):
                return self.variables.get(name, c.name(name))
            case Constant(number=number):
                return self.owner.constant(number, f"{self.result}_constant")
            case Arithmetic():
                return self._arithmetic(flow)
            case Apply():
                source = self.once(flow.input) if timeless(flow) else self.write(flow.input)
                return self._apply(flow, self.keep(source))
            case Adaptive():
                assert self.adaptive is not None
                return self.adaptive(self, flow, self.keep(self.write(flow.input)))
            case Use() | Repeat():
                return self.use(self, flow, self.keep(self.write(flow.input)))
            case Join() | Last() | ReadApart() | WriteApart() | Segments() if self.streams is not None:
                return self.streams(self, flow)
            case _:
                raise TypeError(f"no such flow: {type(flow).__name__}")

    def keep(self, value: c.Code) -> c.Code:
        """Put a value into the result variable when its nesting grows too deep to read."""
        if depth(value) < MAX_NESTING:
            return value
        return self.assign(value)

    def assign(self, value: c.Code, comment: str = "") -> c.Code:
        target = c.name(self.result)
        self.steps.append(c.Assign(target, value, comment))
        return target

    def _arithmetic(self, flow: Arithmetic) -> c.Code:
        left = self._operand(flow.left, flow.shape)
        here = len(self.steps)
        right = self._operand(flow.right, flow.shape)
        if len(self.steps) > here and mentions(left, self.result):  # what stands right would overwrite it
            left = self._apart(left, here)
        return c.Infix({"^": "**"}.get(flow.op, flow.op), left, right)

    def _apart(self, value: c.Code, here: int) -> c.Code:
        """`value`, computed by the steps before `here`, under a name of its own."""
        kept = c.name(self.names.fresh(re.sub(r"_\d+$", "", self.result)))
        last = self.steps[here - 1] if here else None
        if value == c.name(self.result) and isinstance(last, c.Assign):
            self.steps[here - 1] = replace(last, target=_renamed(last.target, value, kept))
        else:
            self.steps.insert(here, c.Assign(kept, value))
        return kept

    def _operand(self, flow: Flow, to: Shape) -> c.Code:
        """One side of an operation, laid out to meet the other."""
        if flow.shape.layout == "per head" and to.layout != "per head" and self.per_head is not None:
            return c.Indexed(
                self.per_head(self.prefix, flow), {"heads": ":, None, None", "gate": ":, None"}[to.layout]
            )
        value = self.once(flow)
        return c.Indexed(value, "..., None") if (flow.shape.layout, to.layout) == ("gate", "heads") else value

    # ------------------------------------------------------------------ primitives

    def _apply(self, flow: Apply, x: c.Code) -> c.Code:
        handler = _HANDLERS.get(flow.primitive)
        if handler is None:
            raise KeyError(f"no torch form for `{flow.primitive}`")
        return handler(self, flow, x)

    def weights(self, flow: Apply, value: c.Code, kind: str = "", comment: str = "") -> str:
        """A module with weights of its own; returns how to call it."""
        key = (id(flow), kind)
        if key not in self.owner.made:  # one stage has one module, in however many methods it stands
            short = kind or _SHORT.get(flow.primitive, flow.primitive)
            wanted = f"{self.prefix}_{short}" if self.prefix else short
            self.owner.made[key] = self.owner.module(wanted, value, (self.path or flow.path,), comment)
        return self.owner.made[key]

    def number(self, flow: Apply, name: str) -> c.Code:
        value = flow.arguments[name]
        assert isinstance(value, Num)
        return self.owner.number(value)

    def carry(self, attribute: str) -> tuple[c.Code, c.Code]:
        """The old and new state of a module: `(state.get("key_conv"), key_conv)`."""
        key = attribute.removeprefix("self.")
        new = c.name(self.names.fresh(key))
        self.owner.keep(key, new)
        if self.looped:
            self.carried.append(key)
            return new, new
        return c.call("state.get", f'"{key}"'), new


def timeless(flow: Flow) -> bool:
    """Whether a flow is made of `learned` values alone, so that it is the same at every token."""
    match flow:
        case Apply(primitive="learned", input=Constant()):
            return True
        case Apply(primitive=name, input=source):
            return name in (*POINTWISE, "scale", "learned") and timeless(source)
        case Arithmetic(left=left, right=right):
            sides = (left, right)
            return any(map(timeless, sides)) and all(timeless(s) or isinstance(s, Constant) for s in sides)
        case _:
            return False


def depth(value: c.Code) -> int:
    """How many calls stand inside each other."""
    match value:
        case c.Invoke(arguments=arguments, named=named):
            return 1 + max([depth(a) for a in arguments] + [depth(v) for _, v in named], default=0)
        case c.Method(value=inner, arguments=arguments):
            return 1 + max([depth(inner), *(depth(a) for a in arguments)])
        case c.Infix(left=left, right=right):
            return max(depth(left), depth(right))
        case c.Indexed(value=inner):
            return depth(inner)
        case _:
            return 0


def _renamed(target: c.Code, old: c.Code, new: c.Code) -> c.Code:
    if isinstance(target, c.Several):
        return replace(target, items=tuple(new if item == old else item for item in target.items))
    return new


def mentions(value: c.Code, name: str) -> bool:
    """Whether an expression reads the variable `name`.

    >>> mentions(c.call("f", "key", "self.value"), "key"), mentions(c.call("f", "self.key"), "key")
    (True, False)
    """
    return re.search(rf"(?<![\w.\"]){re.escape(name)}(?![\w\"=])", flat(value)) is not None


# --------------------------------------------------------------------------- one function for each primitive


def _linear(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    bias = f.arguments.get("bias") is True
    made = c.call(
        "nn.Linear", w.owner.number(f.input.shape.width), w.owner.number(f.shape.width), bias=str(bias)
    )
    return c.Invoke(w.weights(f, made), (x,))


def _conv(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    made = c.call(
        w.owner.kernel("CausalConv", "parts"), w.owner.number(f.input.shape.width), w.number(f, "width")
    )
    module = w.weights(f, made)
    old, new = w.carry(module)
    target = c.name(w.result)
    w.steps.append(c.Assign(c.Several((target, new), bare=True), c.Invoke(module, (x, old))))
    return target


def _norm(kind: str) -> Callable[[FlowWriter, Apply, c.Code], c.Code]:
    def write(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
        return c.Invoke(w.weights(f, c.call(f"nn.{kind}", w.owner.number(f.shape.width), eps=least(f))), (x,))

    return write


def least(flow: Apply) -> str:
    """What a norm adds to the square before its root: its `eps` as a literal."""
    eps = flow.arguments.get("eps")
    return repr(float(eps)).replace("e-0", "e-") if isinstance(eps, Num) else "1e-6"


def _function(name: str) -> Callable[[FlowWriter, Apply, c.Code], c.Code]:
    def write(_w: FlowWriter, _f: Apply, x: c.Code) -> c.Code:
        return c.Invoke(name, (x,))

    return write


def _kernel(name: str) -> Callable[[FlowWriter, Apply, c.Code], c.Code]:
    def write(w: FlowWriter, _f: Apply, x: c.Code) -> c.Code:
        return c.Invoke(w.owner.kernel(name, "parts"), (x,))

    return write


def _started(
    function: str, inverse: Callable[[float], float]
) -> Callable[[FlowWriter, Apply, c.Code], c.Code]:
    """A squashing with a learned bias that puts it at `start` in the beginning."""

    def write(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
        start = f.arguments.get("start")
        if not isinstance(start, Num):
            learned = isinstance(f.input, Apply) and f.input.primitive == "learned"
            if w.prefix in KEEPS and not learned:  # what is learned is in full precision anyway
                x = c.Invoke(w.owner.kernel("full_precision", "parts"), (x,))
            return c.Invoke(function, (x,))
        value = inverse(float(start))
        filled = c.call(
            "torch.full", c.Several((w.owner.number(f.shape.width),)), c.Atom(repr(float(f"{value:.6g}")))
        )
        bias = w.weights(f, c.call("nn.Parameter", filled), "start", f"begins at {float(start):g}")
        return c.Invoke(function, (c.Infix("+", x, c.name(bias)),))

    return write


def _scale(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    by = f.arguments["by"]
    assert isinstance(by, Num)
    return c.Infix("*", x, w.owner.constant(by, f"{w.prefix}_scale" if w.prefix else "scale"))


def _learned(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    start, width = f.arguments["start"], w.owner.number(f.shape.width)
    assert isinstance(start, Num)
    begin = w.owner.number(start)
    begin = c.Atom(repr(float(start))) if isinstance(begin, c.Atom) else c.call("float", begin)
    values = c.call("torch.full", c.Several((width,)), begin)
    values = c.call("torch.ones", width) if start.value == 1 else values
    if isinstance(f.input, Constant):
        return c.name(w.weights(f, c.call("nn.Parameter", values), "learned"))
    return c.Infix("*", x, c.name(w.weights(f, c.call("nn.Parameter", values), "gain")))


def _rope(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    theta = f.arguments["theta"]
    assert isinstance(theta, Num)
    return c.Invoke(
        w.owner.kernel("rotary", "parts"), (x, c.name(w.position), w.owner.constant(theta, "theta"))
    )


def _polynomial(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    made = c.call(w.owner.kernel("Polynomial", "polynomial"), w.number(f, "degree"))
    return c.Invoke(w.weights(f, made), (x,))


def _mlp(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    return c.Invoke(w.weights(f, mlp(w.owner, f.input.shape.width, f.arguments)), (x,))


def mlp(owner: ClassWriter, width: Num, arguments: dict[str, Num | str | bool]) -> c.Code:
    """The constructor of an `MLP`."""
    hidden = arguments.get("hidden")
    inner = (
        owner.number(hidden) if isinstance(hidden, Num) else c.Infix("*", c.Atom("4"), owner.number(width))
    )
    positional = [owner.number(width), inner]
    deep = arguments.get("depth")
    if isinstance(deep, Num) and int(deep) != 2:
        positional.append(owner.number(deep))
    named = {k: c.Atom("True") for k in ("residual", "norm") if arguments.get(k)}
    if arguments.get("activation", "gelu") != "gelu":
        named["activation"] = c.Atom(f'"{arguments["activation"]}"')
    return c.Invoke(owner.kernel("MLP", "parts"), tuple(positional), tuple(named.items()))


def _swiglu(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    return c.Invoke(w.weights(f, swiglu(w.owner, f.input.shape.width, f.arguments)), (x,))


def swiglu(owner: ClassWriter, width: Num, arguments: dict[str, Num | str | bool]) -> c.Code:
    """The constructor of a `SwiGLU`."""
    hidden = arguments.get("hidden")
    inner = (
        owner.number(hidden) if isinstance(hidden, Num) else c.Infix("*", c.Atom("4"), owner.number(width))
    )
    return c.Invoke(owner.kernel("SwiGLU", "parts"), (owner.number(width), inner))


def _dropout(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    wanted = f"{w.prefix}_dropout" if w.prefix else "dropout"
    return c.Invoke(w.owner.module(wanted, c.call("nn.Dropout", w.number(f, "by"))), (x,))


def _embed(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    module = w.weights(f, c.call("nn.Embedding", w.number(f, "vocab"), w.number(f, "width")))
    w.embedding.append(module)
    return c.Invoke(module, (x,))


def _unembed(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    if f.arguments.get("tied") is True and w.embedding:
        return c.call("F.linear", x, f"{w.embedding[0]}.weight")
    made = c.call("nn.Linear", w.owner.number(f.input.shape.width), w.number(f, "vocab"), bias="False")
    return c.Invoke(w.weights(f, made), (x,))


def _split(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    assert f.shape.heads is not None
    symbol = f.shape.heads.symbol
    wanted = "head_writes" if isinstance(symbol, e.Binary) else "heads"
    wanted = symbol.text if isinstance(symbol, e.Name) else wanted
    return c.Invoke(w.owner.kernel("split_heads", "parts"), (x, w.owner.constant(f.shape.heads, wanted)))


def _share(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    assert f.shape.heads is not None
    return c.Invoke(w.owner.kernel("share_heads", "parts"), (x, w.owner.constant(f.shape.heads, "heads")))


def _in_turn(w: FlowWriter, f: Apply, x: c.Code) -> c.Code:
    writes = f.arguments["writes"]
    assert isinstance(writes, Num)
    return c.Invoke(w.owner.kernel("in_turn", "several"), (x, w.owner.constant(writes, "writes")))


def _gate(w: FlowWriter, flow: Apply, x: c.Code) -> c.Code:
    heads = flow.shape.heads or Num(1)
    gate = c.Method(x, "transpose", (c.Atom("1"), c.Atom("2")))
    if flow.input.shape.features == int(heads):
        return gate
    gate = w.assign(gate, "[B, 1, T]")
    return c.Method(gate, "expand", (c.Atom("-1"), w.owner.constant(heads, "heads"), c.Atom("-1")))


def _softplus_inverse(y: float) -> float:
    return y + math.log(-math.expm1(-y))


_HANDLERS: dict[str, Callable[[FlowWriter, Apply, c.Code], c.Code]] = {
    "linear": _linear,
    "conv": _conv,
    "unit": _kernel("unit"),
    "silu": _function("F.silu"),
    "gelu": _function("F.gelu"),
    "relu": _function("F.relu"),
    "elu": _function("F.elu"),
    "tanh": _function("torch.tanh"),
    "exp": _function("torch.exp"),
    "sigmoid": _started("torch.sigmoid", lambda p: math.log(p / (1 - p))),
    "softplus": _started("F.softplus", _softplus_inverse),
    "scale": _scale,
    "learned": _learned,
    "rmsnorm": _norm("RMSNorm"),
    "layernorm": _norm("LayerNorm"),
    "rope": _rope,
    "polynomial": _polynomial,
    "mlp": _mlp,
    "swiglu": _swiglu,
    "dropout": _dropout,
    "embed": _embed,
    "unembed": _unembed,
    "split heads": _split,
    "merge heads": _kernel("merge_heads"),
    "grouped": _split,
    "share heads": _share,
    "in turn": _in_turn,
    "gate of heads": _gate,
}
