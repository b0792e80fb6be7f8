"""Graphs of what a compiled model computes, made with fake tensors: nothing computed, nothing allocated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from nldsl.run.subject import Subject, leaves

# Operations that move or name numbers, and compute none.
VIEWS = (
    "getitem alias as_strided clone detach expand lift_fresh lift_fresh_copy permute reshape select slice "
    "split split_with_sizes squeeze t transpose unbind unsqueeze view _unsafe_view _to_copy sym_size empty"
).split()


@dataclass(frozen=True)
class Trace:
    """The forward pass as one graph, and forward and backward as another.

    `parameters` are their placeholders in the forward graph by name; `gradients` the nodes of the joint
    graph that compute the gradients, None where autograd finds no way.
    """

    forward: fx.Graph
    joint: fx.Graph
    parameters: dict[str, fx.Node]
    gradients: dict[str, fx.Node | None]
    tokens: int

    @property
    def logits(self) -> fx.Node:
        """The node that computes the logits."""
        return results(self.forward)[0]

    @property
    def inputs(self) -> set[fx.Node]:
        """The placeholders of tokens and targets in the joint graph: what a real gradient depends on."""
        return set(placeholders(self.joint)[len(self.parameters) :])


def trace(subject: Subject, length: int) -> Trace:
    """Trace the model on one sequence of `length` tokens, from a fresh state."""
    with quiet_logs():
        with FakeTensorMode():
            model = subject.fresh().eval()
            tokens = torch.zeros(1, length, dtype=torch.long)
        names = [name for name, _ in model.named_parameters()]
        weights = [parameter for _, parameter in model.named_parameters()]

        def forward(weights: list[Tensor], tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
            with torch.no_grad():
                logits, state = functional_call(model, dict(zip(names, weights, strict=True)), (tokens,))
            return logits, [value for _, value in leaves(state) if isinstance(value, Tensor)]

        def joint(weights: list[Tensor], tokens: Tensor, targets: Tensor) -> list[Tensor | None]:
            logits, _ = functional_call(model, dict(zip(names, weights, strict=True)), (tokens,))
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            learned = [one for one in weights if one.requires_grad]
            found = dict(
                zip(map(id, learned), torch.autograd.grad(loss, learned, allow_unused=True), strict=True)
            )
            return [found.get(id(one)) for one in weights]

        forward_graph = make_fx(forward, tracing_mode="fake")(weights, tokens).graph
        joint_graph = make_fx(joint, tracing_mode="fake")(weights, tokens, tokens).graph
    gradients = dict(zip(names, outputs(joint_graph), strict=True))
    return Trace(
        forward_graph,
        joint_graph,
        dict(zip(names, placeholders(forward_graph), strict=False)),
        gradients,
        length,
    )


def outputs(graph: fx.Graph) -> list[Any]:
    """What the graph returns, as one flat list that keeps None."""
    node = next(n for n in graph.nodes if n.op == "output")
    return list(_flat(node.args[0]))


def results(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that the graph returns."""
    return [one for one in outputs(graph) if isinstance(one, fx.Node)]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    """The inputs of a graph, in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def ancestors(nodes: Iterable[fx.Node], *, gradient: bool = False) -> set[fx.Node]:
    """Everything that `nodes` are computed from, themselves too; `gradient`: no further than a `detach`."""
    seen: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if not (gradient and operation(node) == "detach"):
            waiting += node.all_input_nodes
    return seen


def operation(node: fx.Node) -> str:
    """The plain name of what a node calls: `mm` for `aten.mm.default`."""
    if node.op != "call_function":
        return node.op
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet)).split(".")[-1]


def dead(graph: fx.Graph) -> list[fx.Node]:
    """Nodes that compute something that no result needs."""
    live = ancestors(results(graph))
    return [
        node
        for node in graph.nodes
        if node.op == "call_function" and node not in live and operation(node).rstrip("_") not in VIEWS
    ]


# --------------------------------------------------------------------------- work


@dataclass(frozen=True)
class Work:
    """FLOPs of one forward pass, a token: in single layers, and in what memories do between them."""

    layers: float
    memories: float


def work(subject: Subject, length: int) -> tuple[Work, int]:
    """FLOPs of a token in a sequence of `length`, and the bytes of float32 state that it leaves.

    A layer is a module without modules in it; a memory computes in its own `forward`, between its layers.
    What the model itself computes between its parts is the product of a tied `unembed`, which is a layer's.
    """
    with quiet_logs(), FakeTensorMode():
        model = subject.fresh().eval()
        tokens = torch.zeros(1, length, dtype=torch.long)
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with counter, torch.no_grad():
            _, state = model(tokens)
        held = sum(v.numel() * 4 for _, v in leaves(state) if isinstance(v, Tensor) and v.is_floating_point())
    totals = {path: float(sum(counts.values())) for path, counts in counter.get_flop_counts().items()}
    inside = _own(model, totals)
    root = type(model).__name__
    layers = sum(own for path, own in inside.items() if path == root or not _children(model, path))
    return Work(layers / length, (totals.get("Global", 0.0) - layers) / length), held


def _own(model: nn.Module, totals: dict[str, float]) -> dict[str, float]:
    """The FLOPs of each module that none of its children does."""
    root = type(model).__name__
    found: dict[str, float] = {}
    for name, _ in model.named_modules():
        path = f"{root}.{name}" if name else root
        found[path] = totals.get(path, 0.0) - sum(_below(model, path, totals))
    return found


def _below(model: nn.Module, path: str, totals: dict[str, float]) -> Iterator[float]:
    """The FLOPs of the next modules below, through lists of modules, which do no work themselves."""
    for child in _children(model, path):
        if child in totals:
            yield totals[child]
        else:
            yield from _below(model, child, totals)


def _children(model: nn.Module, path: str) -> list[str]:
    name = path.partition(".")[2]
    return [f"{path}.{child}" for child, _ in model.get_submodule(name).named_children()]


def _triangular(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """A triangular solve `[..., n, n] x [..., n, m]`: n^2 m / 2 multiply-adds, which count as two each."""
    batch = 1
    for size in b[:-2]:
        batch *= size
    return batch * a[-1] ** 2 * b[-1]


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Scores and averages over all tokens, masked or not."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[-2] * (width + value[-1])


# What torch's counter takes for free.
FORMULAS: dict[Any, Any] = {
    torch.ops.aten.linalg_solve_triangular: _triangular,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep torch from logging a traceback of what is raised anyway."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
