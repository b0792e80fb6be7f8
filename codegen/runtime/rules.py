"""Learning rules as `torch.optim.Optimizer`s.

`make(rule, parameters, rate, **options)` is the way in.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
Tensors = list[Tensor] | tuple[Tensor, ...]
Group = dict[str, Any]
Memory = dict[str, list[Tensor]]
Lists = tuple[type["Rule"], list[Tensor], list[Tensor], Memory, int]


class Rule(Optimizer):
    """An optimizer made from one function, `change`, which updates lists of weights.

    It counts the updates of each weight and keeps the tensors that `held` names.  A rule for matrices looks
    at the group option `matrix`: None (default) means parameters with two axes, True all with two or more
    (leading axes are a stack of matrices), False none.  What is no matrix goes to `otherwise`.
    """

    change: ClassVar[Callable[..., None]]
    """`change(weights, grads, memory, step, rate, **options)`: update `weights` and `memory` in place; it is
    update `step`, from 1, of each of them.
    """

    held: ClassVar[tuple[str, ...]] = ()
    remembers: ClassVar[bool] = True  # whether it holds something, or asks for the number of the update
    by_shape: ClassVar[bool] = False  # whether the weights of one call of `change` have one shape
    in_pieces: ClassVar[bool] = True  # whether a call of `change` takes few weights at a time, on a CPU
    matrices: ClassVar[bool] = False
    otherwise: ClassVar[type[Rule] | None] = None

    def __init__(self, params: Parameters, lr: float, **options: float) -> None:
        super().__init__(params, {"lr": lr, **options, "matrix": None})

    @classmethod
    def begin(cls, weight: Tensor) -> dict[str, Tensor]:
        """What is held for a weight before its first update."""
        return {name: torch.zeros_like(weight) for name in cls.held}

    @classmethod
    def options(cls, group: Group) -> dict[str, float]:
        """What `change` takes from a group."""
        return {name: value for name, value in group.items() if name not in ("params", "lr", "matrix")}

    @staticmethod
    def aside(group: Group) -> dict[str, float]:
        """What `otherwise.change` takes: `rate` and its options, from those of a group of this rule."""
        return {"rate": group["lr"]}

    def watch(self, model: nn.Module) -> None:
        """Look at the layers of `model` before it runs; rules that see gradients alone have no need to."""

    def settle(self, gram: float, error: float) -> None:
        """Before a step: what gradients were multiplied by since they were gathered (see `LayerRule`)."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            options = {"rate": group["lr"], **self.options(group)}
            for kind, weights, grads, memory, step in self.lists(group):
                given = options if kind is type(self) else self.aside(group)
                for few in kind.pieces(weights):
                    held = {name: tensors[few] for name, tensors in memory.items()}
                    kind.change(weights[few], grads[few], held, step, **given)
        return loss

    @classmethod
    def pieces(cls, weights: list[Tensor], numbers: int = 1 << 18) -> Iterator[slice]:
        """The parts of a list for one call each: on a CPU about as much as a core's cache keeps at hand."""
        if not cls.in_pieces or weights[0].device.type != "cpu":
            yield slice(None)
            return
        begin, size = 0, 0
        for end, weight in enumerate(weights, 1):
            size += weight.numel()
            if size >= numbers or end == len(weights):
                yield slice(begin, end)
                begin, size = end, 0

    def lists(self, group: Group) -> Iterator[Lists]:
        """The weights of a group that have gradients, in lists that a rule may change together."""
        kind = type(self)
        if not (kind.matrices or kind.remembers or kind.by_shape):  # then any list will do
            pairs = [(w, g) for w in group["params"] if (g := w.grad) is not None]
            if pairs:
                yield kind, [w for w, _ in pairs], [g for _, g in pairs], {}, 0
            return
        found: dict[Any, tuple[list[Tensor], list[Tensor], list[dict[str, Any]]]] = {}
        for weight in group["params"]:
            gradient = weight.grad
            if gradient is None:
                continue
            if self.matrices:
                kind = self.kind(weight, group)
            state, step = self._counted(weight, kind) if kind.remembers else ({}, 0)
            shape = (weight.shape, state.get("tokens")) if kind.by_shape else None
            place = (kind, step, weight.dtype, weight.device, shape)
            if (lists := found.get(place)) is None:
                lists = found[place] = ([], [], [])
            lists[0].append(weight)
            lists[1].append(gradient)
            lists[2].append(state)
        for (kind, step, *_), (weights, grads, states) in found.items():
            yield kind, weights, grads, {name: [s[name] for s in states] for name in kind.held}, step

    def _counted(self, weight: Tensor, kind: type[Rule]) -> tuple[dict[str, Any], int]:
        """The state of a weight, begun where it is new, and the number of this update."""
        state = self.state[weight]
        if "step" not in state:
            state |= {"step": 0, **kind.begin(weight)}
        state["step"] += 1
        return state, state["step"]

    def kind(self, weight: Tensor, group: Group) -> type[Rule]:
        """The rule that changes `weight`, for rules for matrices: this one, or `otherwise`."""
        asked = group["matrix"]
        if weight.ndim == 2 if asked is None else asked and weight.ndim >= 2:
            return type(self)
        if self.otherwise is None:
            name = type(self).__name__.lower()
            raise ValueError(f"`{name}` is for matrices, and here is a parameter of {tuple(weight.shape)}")
        return self.otherwise


class LayerRule(Rule):
    """A rule that sees what linear layers were given, and the gradients at their outputs.

    `watch` looks at the layers; then each backward pass gathers what `seen` names, until `zero_grad`:
    `input` and `error` (a token in each row), the number of `tokens`, or the sums behind `input_gram` and
    `error_gram`.
    """

    seen: ClassVar[tuple[str, ...]] = ()
    matrices = True

    def __init__(self, params: Parameters, lr: float, **options: float) -> None:
        super().__init__(params, lr, **options)
        self.layers: set[Tensor] = set()
        self.factors = {"gram": 1.0, "error": 1.0}

    def watch(self, model: nn.Module) -> None:
        """Gather from the linear layers of `model` whose weights this rule changes."""
        own = {weight for group in self.param_groups for weight in group["params"]}
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.weight in own:
                self.layers.add(module.weight)
                look: Any = torch.compiler.disable(self._hook)  # a compiler steps around it
                module.register_forward_hook(look)

    def _hook(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not (output.requires_grad and isinstance(module, nn.Linear)):
            return
        weight, rows = module.weight, given[0].detach()
        output.register_hook(lambda error: self.gather(weight, rows, error))

    @torch.no_grad()
    def gather(self, weight: Tensor, given: Tensor, error: Tensor) -> None:
        """Take in what a layer was given, `[..., columns]`, and the gradients at its output `[..., rows]`."""
        state = self.state[weight]
        pairs = (("input", given), ("error", error))
        rows = {name: tensor.flatten(0, -2).to(weight.dtype) for name, tensor in pairs}
        state["tokens"] = state.get("tokens", 0) + len(rows["input"])
        for name in self.seen:
            signal, _, gram = name.partition("_")
            if signal == "tokens":
                continue
            if gram:
                square = rows[signal].mT @ rows[signal]
                state[name] = state[name] + square if name in state else square
            else:
                state.setdefault(name, []).append(rows[signal])

    def settle(self, gram: float, error: float) -> None:
        """Before a step whose gradients are no longer those that were gathered.

        A mean over tokens is multiplied by `gram`: the number of sequences that gradients are a sum of.
        Gradients at outputs are multiplied by `error`, as the gradients were.
        """
        self.factors = {"gram": gram, "error": error}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, and what was gathered with them."""
        super().zero_grad(set_to_none)
        for state in self.state.values():
            for name in (*self.seen, "tokens"):
                state.pop(name, None)

    def lists(self, group: Group) -> Iterator[Lists]:
        """As every rule's, with what the layers saw among the memories."""
        for kind, weights, grads, memory, step in super().lists(group):
            if kind is type(self):
                memory |= {name: [self._signal(name, w) for w in weights] for name in self.seen}
            yield kind, weights, grads, memory, step

    def _signal(self, name: str, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if name == "tokens":
            return torch.tensor(state[name])
        signal, _, gram = name.partition("_")
        scale = (self.factors["error"] if signal == "error" else 1.0) ** (2 if gram else 1)
        if gram:
            return state[name] * (self.factors["gram"] * scale / state["tokens"])
        rows = torch.cat(state[name])
        return rows if scale == 1 else rows * scale

    def kind(self, weight: Tensor, group: Group) -> type[Rule]:
        """This rule for the weights of layers that it watches."""
        if weight in self.layers and group["matrix"] is not False and "tokens" in self.state[weight]:
            return type(self)
        if self.otherwise is None:
            name = type(self).__name__.lower()
            raise ValueError(
                f"`{name}` reads what linear layers are given, and saw no layer with a parameter of "
                f"{tuple(weight.shape)}; call `watch(model)` before the model runs"
            )
        return self.otherwise


def fusable(weights: Tensors) -> bool:
    """Whether torch has its own steps as one kernel for these weights."""
    return all(w.is_floating_point() and w.device.type in ("cpu", "cuda") for w in weights)


def counts(weights: Tensors, step: int) -> list[Tensor]:
    """The number of updates before this one, as torch's own steps count them."""
    return list(torch.full((len(weights),), step - 1.0, device=weights[0].device).unbind())


# Muon's quintic (Keller Jordan): singular values from 0.01 up go to [0.68, 1.13] in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrices: Tensors, rounds: int = 5) -> Tensors:
    """Semi-orthogonal matrices near `matrices`, by Newton-Schulz iteration; zero stays zero.

    X = M / |M|_F;  `rounds` times  A = X X^T,  X <- a X + (b A + c A^2) X  (Nested Learning, Eq. 42-44, in
    the form of the reference Muon).  All have one shape, `[..., rows, columns]`, and are turned as one batch.
    """
    stack = torch.stack(list(matrices))
    shape = stack.shape
    x = stack.reshape(-1, *shape[-2:])
    wide = x.size(-2) <= x.size(-1)
    x = x if wide else x.mT
    # The norm is guarded by a term far below any gradient that is not zero, so zero divides to zero.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).reshape(shape).unbind()


def transposed(matrices: Tensors) -> Tensors:
    """Rows and columns exchanged."""
    return [matrix.mT.contiguous() for matrix in matrices]


def times(left: Tensors, right: Tensors) -> Tensors:
    """The products of matrices, pair by pair."""
    return [a @ b for a, b in zip(left, right, strict=True)]


def solve(left: Tensors, right: Tensors) -> Tensors:
    """`left right^-1`, pair by pair, for square `right`."""
    return torch.linalg.solve(torch.stack(list(right)), torch.stack(list(left)), left=False).unbind()


def gram(matrices: Tensors) -> Tensors:
    """The mean of x x^T over the rows x of each."""
    return [matrix.mT @ matrix / matrix.size(-2) for matrix in matrices]


def mean(matrices: Tensors) -> Tensors:
    """The mean of all numbers of each, kept as a matrix of one."""
    return [m.mean((-2, -1), keepdim=True) if m.ndim > 1 else m.mean() for m in matrices]


def norm(matrices: Tensors) -> Tensors:
    """The root of the sum of all squares of each, kept as a matrix of one."""
    return [
        torch.linalg.vector_norm(m, dim=(-2, -1), keepdim=True) if m.ndim > 1 else m.norm() for m in matrices
    ]


def identity(weights: Tensors, size: int) -> Tensors:
    """The identity of `size` rows, once for each weight."""
    eye = torch.eye(size, dtype=weights[0].dtype, device=weights[0].device)
    return [eye] * len(weights)


def add_identity(matrices: Tensors, number: float) -> None:
    """Add `number` to the diagonal of each square matrix, in place."""
    for matrix in matrices:
        matrix.diagonal(dim1=-2, dim2=-1).add_(number)


def associate(
    memory: Tensors, keys: Tensors, values: Tensors | float, rate: float, retain: float = 1.0
) -> None:
    """Write m <- retain m + rate value^T key: rows of keys and values, into matrices by their product.

    A number for `values` is that multiple of the identity.
    """
    for held, written in zip(memory, taught(keys, values), strict=True):
        held.mul_(retain).add_(written, alpha=rate)


def taught(keys: Tensors, values: Tensors | float) -> Tensors:
    """value^T key, pair by pair; a number for `values` is that multiple of the identity."""
    if isinstance(values, float | int):
        return [key * values for key in keys]
    return [value.mT @ key for key, value in zip(keys, values, strict=True)]


def regress(
    memory: Tensors,
    keys: Tensors,
    values: Tensors | float,
    rate: float,
    retain: float = 1.0,
    *,
    current: bool = False,
) -> None:
    """Write m <- retain m - rate (m' key^T - value^T) key: a step down on 1/2 |m' key^T - value^T|^2.

    m' is m as it was (`current`), or what is retained of it.  A number for `values` is that multiple of
    the identity.
    """
    key, held = torch.stack(list(keys)), torch.stack(list(memory))
    answered = held @ (key.mT @ key) if key.size(-2) > key.size(-1) else held @ key.mT @ key
    erased = rate if current else rate * retain
    for one, old, written in zip(memory, answered.unbind(), taught(keys, values), strict=True):
        one.mul_(retain).sub_(old, alpha=erased).add_(written, alpha=rate)


def regress_implicit(
    memory: Tensors, keys: Tensors, values: Tensors | float, rate: float, retain: float = 1.0
) -> None:
    """Write m <- (retain m + rate value^T key) (I + rate key^T key)^-1, by the key's smaller Gram matrix.

    (I + e K^T K)^-1 = I - e K^T (I + e K K^T)^-1 K  (Woodbury).  A number for `values` is that multiple of
    the identity.
    """
    key = torch.stack(list(keys))
    written = torch.stack(list(memory)).mul_(retain).add_(torch.stack(list(taught(keys, values))), alpha=rate)
    rows, columns = key.shape[-2:]
    eye = torch.eye(min(rows, columns), dtype=key.dtype, device=key.device)
    if columns <= rows:
        made = torch.linalg.solve(eye + rate * key.mT @ key, written, left=False)
    else:
        inner = torch.linalg.solve(eye + rate * key @ key.mT, key)
        made = written - rate * (written @ key.mT) @ inner
    for one, new in zip(memory, made.unbind(), strict=True):
        one.copy_(new)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
    "tanh": torch.tanh,
}


def answer(
    layers: Tensors, rows: Tensor, *, residual: bool = False, norm: bool = False, activation: str = "gelu"
) -> Tensor:
    """What a net of linear layers `[out, in]` says to each row of `[..., tokens, in]`."""
    signal = rows @ layers[0].mT
    for layer in layers[1:]:
        signal = ACTIVATIONS[activation](signal) @ layer.mT
    if norm:
        signal = F.layer_norm(signal, signal.shape[-1:])
    return rows + signal if residual else signal


def answers(nets: Sequence[Tensors], queries: Tensors, **form: Any) -> Tensors:
    """What each net says to its queries."""
    return [answer(layers, rows, **form) for layers, rows in zip(nets, queries, strict=True)]


def slopes(nets: Sequence[Tensors], queries: Tensors, **form: Any) -> Tensors:
    """The derivative of each net, `[out, in]`, averaged over its queries.

    That is the derivative of the mean answer by a shift of all queries.
    """
    made: list[Tensor] = []
    for layers, rows in zip(nets, queries, strict=True):
        shift = torch.zeros_like(rows[0])

        def moved(by: Tensor, layers: Tensors = layers, rows: Tensor = rows) -> Tensor:
            return answer(layers, rows + by, **form).mean(0)

        with torch.enable_grad():
            slope = torch.autograd.functional.jacobian(moved, shift)
        assert isinstance(slope, Tensor)
        made.append(slope)
    return made


def descend(
    nets: Sequence[Tensors],
    keys: Tensors,
    values: Tensors,
    rate: float,
    retain: float = 1.0,
    *,
    dot: bool = False,
    current: bool = False,
    **form: Any,
) -> None:
    """Write m <- retain m - rate times the gradient of 1/2 |m'(key) - value|^2, or of -<m'(key), value>.

    The second is for `dot`; m' is m as it was (`current`), or what is retained of it.
    """
    for layers, key, value in zip(nets, keys, values, strict=True):
        kept = [layer * retain for layer in layers]
        asked = [layer.detach().clone().requires_grad_() for layer in (layers if current else kept)]
        with torch.enable_grad():
            said = answer(asked, key, **form)
            loss = -(said * value).sum() if dot else (said - value).square().sum() / 2
            gradients = torch.autograd.grad(loss, asked)
        for layer, w, gradient in zip(layers, kept, gradients, strict=True):
            layer.copy_(w.sub_(gradient, alpha=rate))


def first_layers(weight: Tensor, widths: Sequence[int], *, drawn: bool = False) -> list[Tensor]:
    """The layers of a net before its first write: `[out, in]` for each pair of `widths`, the last one zero.

    Inner layers hold plus and minus the identity in turn, scaled down where they repeat, so that no two rows
    learn the same; `drawn` draws them instead, always the same ones, and the last layer too.
    """
    stack = weight.shape[:-2]
    layers: list[Tensor] = []
    for number, (into, out) in enumerate(pairwise(widths)):
        if drawn:
            generator = torch.Generator().manual_seed(number)
            layer = torch.randn(out, into, generator=generator, dtype=torch.float64) / math.sqrt(into)
        elif number == len(widths) - 2:
            layer = torch.zeros(out, into, dtype=torch.float64)
        else:
            row = torch.arange(out)
            size = (1 - 2 * (row // into % 2)) / (1 + row // (2 * into))
            layer = torch.zeros(out, into, dtype=torch.float64)
            layer[row, row % into] = size.double()
        layers.append(layer.to(weight.device, weight.dtype).expand(*stack, out, into).clone())
    return layers


RULES: dict[str, type[Rule]] = {}


def make(rule: str, params_or_groups: Parameters, rate: float, **options: Any) -> Rule:
    """The optimizer called `rule` over parameters or groups of them.

    A group is a dict with `params` and what differs from `options` there: `decay`, `matrix`.
    Raises `ValueError`, naming the nearest, for a rule or option that does not exist.
    """
    if rule not in RULES:
        raise ValueError(f"there is no rule `{rule}`; {_near(rule, RULES)}")
    maker = RULES[rule]
    known = [name for name in inspect.signature(maker).parameters if name not in ("params", "lr")]
    for name in options:
        if name not in known:
            raise ValueError(f"rule `{rule}` has no option `{name}`; {_near(name, known)}")
    items = list(params_or_groups)
    groups = [dict(g) for g in items if isinstance(g, dict)] or [{"params": items}]
    return maker(groups, rate, **options)


def _near(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(f"`{n}`" for n in near) + "?"
    return "known: " + (", ".join(f"`{n}`" for n in names) or "none")
