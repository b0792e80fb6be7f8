"""Graphs of what a compiled model computes, made with fake tensors: nothing computed, nothing allocated."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
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
    "split split_with_sizes squeeze t transpose unbind unsqueeze view _unsafe_view _to_copy sym_size empty "
    "empty_like new_empty"
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
            model = subject.fresh().train()  # what is not plastic learns now, and not at test time
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
    """Everything that `nodes` are computed from, themselves too; `gradient`: no further than a `detach`.

    Writing into a buffer counts for whoever reads the buffer afterwards, through whichever view.
    """
    ends = list(nodes)
    if not ends:
        return set()
    buffers = Buffers(ends[0].graph, apart=("detach",) if gradient else ())
    waiting = [one for end in ends for one in buffers.told(end)]
    seen: set[fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if not (gradient and operation(node) == "detach"):
            waiting += buffers.sources(node)
    return seen


def depending(graph: fx.Graph, on: set[fx.Node], results: dict[str, fx.Node]) -> set[str]:
    """Which of the named `results` of a graph are computed from any of `on`."""
    buffers, felt = Buffers(graph), set(on)
    for node in graph.nodes:
        if any(source in felt for source in buffers.sources(node)):
            felt.add(node)
    return {name for name, node in results.items() if any(one in felt for one in buffers.told(node))}


class Buffers:
    """Which nodes of a graph share memory, and what writes into it, in order.

    Args:
        graph: a graph of ATen operations.
        apart: operations whose result is held to have memory of its own, though it is a view.
    """

    def __init__(self, graph: fx.Graph, apart: tuple[str, ...] = ()) -> None:
        self.places = {node: place for place, node in enumerate(graph.nodes)}
        self.owner: dict[fx.Node, fx.Node] = {}
        self.writes: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            shown = None if operation(node) in apart else viewed(node)
            self.owner[node] = node if shown is None else self.owner[shown]
            for target in overwritten(node):
                self.writes.setdefault(self.owner[target], []).append(node)

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """What `node` is computed from: its inputs, and what has been written into them by then."""
        reads = node.all_input_nodes
        return [one for read in reads for one in (read, *self._written(read, self.places[node]))]

    def told(self, result: fx.Node) -> list[fx.Node]:
        """A result, and what is written into it up to the end."""
        return [result, *self._written(result, len(self.places))]

    def _written(self, read: fx.Node, before: int) -> list[fx.Node]:
        """What writes into the memory of `read` after it was made and before the place `before`."""
        found = self.writes.get(self.owner[read], [])
        begin = bisect_right(found, self.places[read], key=self.places.__getitem__)
        return found[begin : bisect_left(found, before, key=self.places.__getitem__)]


def viewed(node: fx.Node) -> fx.Node | None:
    """The input whose memory `node` gives on: of a view, and of an operation that writes; None for others."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or operation(node) == "_unsafe_view":
        # Not told by a schema: an item of several results, and a view that says it is none.
        known = operation(node) in ("getitem", "_unsafe_view") and isinstance(node.args[0], fx.Node)
        return node.args[0] if known else None  # type: ignore[return-value]
    if all(one.alias_info is None for one in schema.returns):
        return None
    shared = _arguments(node, lambda info: info is not None)
    return shared[0] if shared else None


def overwritten(node: fx.Node) -> list[fx.Node]:
    """The inputs that `node` writes into."""
    return _arguments(node, lambda info: info is not None and info.is_write)


def _arguments(node: fx.Node, which: Callable[[Any], bool]) -> list[fx.Node]:
    """The arguments of which the schema says something about their memory that `which` asks for."""
    schema = getattr(node.target, "_schema", None)
    found: list[fx.Node] = []
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if which(argument.alias_info):
            given = node.kwargs.get(argument.name, node.args[place] if place < len(node.args) else None)
            found += [one for one in _flat(given) if isinstance(one, fx.Node)]
    return found


def operation(node: fx.Node) -> str:
    """The plain name of what a node calls: `mm` for `aten.mm.default`."""
    if node.op != "call_function":
        return node.op
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet)).split(".")[-1]


def dead(graph: fx.Graph) -> list[fx.Node]:
    """Nodes that compute something that no result needs; what gives nothing only looks, and may raise."""
    live = ancestors(results(graph))
    return [
        node
        for node in graph.nodes
        if node.op == "call_function"
        and node not in live
        and operation(node).rstrip("_") not in VIEWS
        and not looks(node)
    ]


def looks(node: fx.Node) -> bool:
    """Whether an operation gives nothing and writes nothing: it checks."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and not schema.returns and not overwritten(node)


# --------------------------------------------------------------------------- work


@dataclass(frozen=True)
class Work:
    """FLOPs of one forward pass, a token, and the state that one sequence leaves.

    `layers` are the FLOPs in single layers, `memories` those in what memories do between them; `held` is the
    state in bytes of float32, `again` what of it is held once more to read an open segment again, and
    `matrices` how many matrices of single heads it holds.
    """

    layers: float
    memories: float
    held: int
    matrices: int
    again: int = 0


def work(subject: Subject, length: int) -> Work:
    """What a sequence of `length` tokens takes.

    A layer is a module without modules in it; a memory computes in its own `forward`, between its layers.
    What the model itself computes between its parts is the product of a tied `unembed`, which is a layer's.
    Where levels learn from the task on the way, layers are counted while all weights stand still.
    """
    with quiet_logs(), FakeTensorMode():
        model = subject.fresh().eval()
        tokens = torch.zeros(1, length, dtype=torch.long)
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with counter, torch.no_grad():
            _, state = model(tokens)
        everything = float(counter.get_total_flops())
        again = sum(4 * v.numel() for v in _numbers(state.get("entered"))) if learns_in_sequence(model) else 0
        tensors = _numbers(state)
        held = sum(4 * v.numel() for v in tensors) - again
        matrices = sum(v.shape[:-2].numel() for v in tensors if v.ndim == 4)
        if learns_in_sequence(model):
            counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
            model.forward = model.read  # type: ignore[assignment]
            with counter, torch.no_grad():
                model(tokens)
    totals = {path: float(sum(counts.values())) for path, counts in counter.get_flop_counts().items()}
    inside = _own(model, totals)
    root = type(model).__name__
    fast = tuple(f"{root}.{name}" for name, one in model.named_modules() if hasattr(one, "learning"))
    layers = sum(
        own
        for path, own in inside.items()
        if path == root or not (_children(model, path) or path.startswith(fast))
    )
    return Work(layers / length, (everything - layers) / length, held, matrices, again)


def learns_in_sequence(model: nn.Module) -> bool:
    """Whether levels of the model learn from the task inside the sequence."""
    return any(hasattr(module, "learning") for module in model.modules())


def _numbers(state: Any) -> list[Tensor]:
    """The tensors of floating point in a state."""
    return [v for _, v in leaves(state) if isinstance(v, Tensor) and v.is_floating_point()]


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


def _multiply_add(into: torch.Size, *_: Any, **__: Any) -> int:
    """One multiply-add for each number, which counts as two: what convolutions over tokens are made of."""
    return 2 * into.numel()


# What torch's counter takes for free.
FORMULAS: dict[Any, Any] = {
    torch.ops.aten.linalg_solve_triangular: _triangular,
    torch.ops.aten.addcmul_: _multiply_add,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep torch from logging a traceback of what is raised anyway, and each tensor that is made fake."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.__trace")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
