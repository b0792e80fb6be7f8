"""What parts cost: parameters, running state and FLOPs per token.

A multiply-add counts as two. Reads and writes of a memory are counted in their cheapest exact
form, token by token; an engine's tile changes the real work, never these figures.
"""

from __future__ import annotations

from nldsl.records import record
from nldsl.resolve.adaptive import own_core
from nldsl.resolve.algorithm import Algorithm, Function, Negative, Operation, RuleMemory, constant
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    Arithmetic,
    ChainInstance,
    ChainLevel,
    Core,
    Flow,
    Map,
    MemoryInstance,
    Num,
    Persistent,
)
from nldsl.resolve.passes import stream
from nldsl.resolve.primitives import PRIMITIVES
from nldsl.resolve.sides import sides

BYTES = 4  # fp32


@record
class Cost:
    """`parameters` learned outside, `state` held per sequence, `flops` per token of a forward pass."""

    parameters: int = 0
    state: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.state + other.state, self.flops + other.flops)


def numbers(arguments: dict[str, Num | str | bool]) -> dict[str, float]:
    """Arguments as plain numbers, words left out."""
    return {k: (v.value if isinstance(v, Num) else v) for k, v in arguments.items() if not isinstance(v, str)}


def stage(node: Flow) -> Cost:
    """The cost of one stage, or of learned tokens before a stream."""
    if isinstance(node, Persistent):
        return Cost(int(node.count) * node.shape.features)
    return primitive(node) if isinstance(node, Apply) else Cost()


def primitive(node: Apply) -> Cost:
    """The cost of one stage."""
    known = PRIMITIVES.get(node.primitive)
    if known is None:  # a change of layout
        return Cost()
    inputs, outputs, arguments = node.input.shape.features, node.shape.features, numbers(node.arguments)
    return Cost(
        # The heads of a memory share what is learned for one of them: a norm of heads has one gain.
        known.parameters(int(node.input.shape.width), int(node.shape.width), arguments),
        known.state(inputs, arguments),
        known.flops(inputs, outputs, arguments),
    )


def static(flow: Flow) -> Cost:
    """Everything in a pipeline but the memories in it."""
    total = Cost()
    for node in flow.walk():
        if isinstance(node, Apply | Persistent):
            total += stage(node)
        elif isinstance(node, Arithmetic):
            total += Cost(flops=node.shape.features)
    return total


def map_weights(map: Map, key_width: int, value_width: int) -> int:
    """Numbers in the weights of one head's map; the norm of a fast map has no weights of its own."""
    return sum(r * c for r, c in map.weights(key_width, value_width))


def fast_weights(
    map: Map, core: Core, heads: int, key_width: int, value_width: int, length: int, *, folded: bool = False
) -> Cost:
    """A memory with weights of its own for each sequence: state, reads and writes.

    `folded`: its projections or targets depend on it, so the weights of a period's start are kept beside the
    running ones, whatever the period.
    """
    if map.kind == "cache":
        # Of a window, the newest token comes with the call.
        kept = min(map.window - 1 + map.sinks if map.window else length, length)
        seen = min(map.window + map.sinks, length) if map.window else length / 2
        pair = key_width + value_width
        return Cost(0, kept * (core.groups or heads) * pair, round(2 * seen * heads * pair))
    weights = map_weights(map, key_width, value_width) * heads
    reads = 2 * weights
    gradient = 2 * weights if core.objective != "dot" or map.kind != "matrix" else 0
    gradient += 2 * weights if map.kind in ("mlp", "swiglu", "block") else 0
    gradient *= len(core.expression.answers) if core.expression is not None else 1
    erase = 4 * weights if core.rule.startswith("dgd") else 2 * weights if core.erase_into else 0
    momentum = 2 * weights if core.momentum != "none" else 0
    retain = weights if core.retain != "none" else 0
    started = weights if core.start == "learned" else 0
    copies = held_copies(core, folded=folded)
    beside = heads * key_width if core.normalise else 0
    window = core.window or 1
    widths = {"head": 1, "key": key_width, "value": value_width}
    asked = core.expression.parameters if core.expression is not None else ()
    pair = key_width + value_width + 1 + core.thresholds  # and how much it counts
    pair += sum(widths[one.kind] for one in asked)
    beside += (window - 1) * heads * pair
    # Where gradients run, a token takes those of all its pairs; where they stand still, each is taken once.
    gradients = gradient * (window if isinstance(core.anchor, str) else 1)
    taught = gradients + 2 * window * weights
    if window > 1 and (map.kind, core.objective) == ("matrix", "l2") and isinstance(core.anchor, str):
        # Or from the window's sums of k k^T and v k^T, each kept up by one term in and one out.
        grams = heads * key_width**2
        taught = min(taught, 2 * key_width * weights + 4 * (grams + weights) + 2 * weights)
    own = heads * rule_flops(core.optimizer, map.weights(key_width, value_width)) if core.optimizer else 0
    write = core.writes * (taught + erase + momentum + own)
    if core.rule == "muon":
        write += heads * sum(newton_schulz(r, c) for r, c in map.weights(key_width, value_width))
    if core.rule == "ridge":  # a second sum, of keys, and a Cholesky factor with two triangular solves a read
        grams = heads * key_width**2
        solve = grams * key_width // 3 + 2 * grams
        kept, write = weights + grams, 2 * core.writes * (weights + grams)
        retain = kept if core.retain != "none" else 0
        return Cost(started, kept * copies, reads + solve + write + retain)
    return Cost(started, weights * copies + beside, reads + write + retain)


def rule_flops(rule: Algorithm, shapes: tuple[tuple[int, int], ...]) -> int:
    """FLOPs of one update by a declared rule, beside the gradient: each operator and function of its formulas
    once for each number of the weights, two more for each write; matrix products in full.
    """
    return sum(_rule_flops(rule, rows, columns) for rows, columns in shapes)


def _rule_flops(rule: Algorithm, rows: int, columns: int) -> int:
    total = 2 * rows * columns * (1 + len(rule.memories))
    for node in (n for formula in rule.formulas() for n in formula.walk() if n.kind == "tensor"):
        match node:
            case Function(name="orthogonal", arguments=(_, rounds)):
                total += newton_schulz(rows, columns, int(constant(rounds, rule.options) or 1))
            case Function(name="times" | "solve" | "gram"):
                total += 2 * rows * columns * max(rows, columns)
            case Operation() | Negative() | Function():
                total += rows * columns
            case _:
                pass
    return total


def rule_numbers(instance: MemoryInstance, memory: RuleMemory, length: int) -> int:
    """Numbers in one memory of a declared rule, per sequence."""
    shapes = instance.core.map.weights(int(instance.key_width), int(instance.value_width))
    held = sum(memory.holds(rows, columns) for rows, columns in shapes)
    return held * int(instance.heads) * kept_copies(instance, length) * stream(instance.seen, length).places


def held_copies(core: Core, *, folded: bool = False) -> int:
    """How often the numbers of the weights are held: running, as a period found them, and what makes them."""
    anchored = core.update > 1 and isinstance(core.anchor, int) and core.anchor not in (1, core.update)
    accumulated = any(name != "norm" for name, _, _ in core.constrain)
    orthogonal = core.rule == "muon" and core.momentum == "none"  # the gradient that was made orthogonal
    return 1 + (core.period > 1 or folded) + anchored + accumulated + orthogonal


def newton_schulz(rows: int, columns: int, rounds: int = 5) -> int:
    """FLOPs of making one matrix orthogonal: in each round a Gram matrix, its square, and their product."""
    small, large = sorted((rows, columns))
    return rounds * (4 * small**2 * large + 2 * small**3)


def memory(instance: MemoryInstance, length: int) -> Cost:
    """The memory itself with what its projections carry from token to token, without momentum's state."""
    heads, key, value = int(instance.heads), int(instance.key_width), int(instance.value_width)
    core = instance.core
    folded = bool(instance.adaptives()) or core.target == "self"
    run = stream(instance.seen, length)
    cost = fast_weights(core.map, core, heads, key, value, run.held, folded=folded)
    flops, apart = cost.flops, instance.apart
    if apart is not None:
        asked = flops if core.map.kind == "cache" else 2 * map_weights(core.map, key, value) * heads
        flops = (flops - asked) * max(apart.after, 1) + asked * (apart.before + apart.after)
    state = cost.state * kept_copies(instance, length) + projections(instance).state
    return Cost(cost.parameters, state * run.places, round(flops * run.rate))


def kept_copies(instance: MemoryInstance, length: int) -> int:
    """How often the weights are held: once more as a segment found them, where reads see them so."""
    apart = instance.apart
    return 1 + (apart is not None and apart.before > 0 and 0 < (apart.segment or 0) < length)


def momentum_state(instance: MemoryInstance, length: int) -> int:
    """Numbers in the momentum of a memory, per sequence."""
    one = map_weights(instance.core.map, int(instance.key_width), int(instance.value_width))
    places = stream(instance.seen, length).places
    return one * int(instance.heads) * kept_copies(instance, length) * places


def adaptive(node: Adaptive, core: Core, heads: int) -> Cost:
    """An adaptive projection in a memory of this core: a memory from a head's features to as many."""
    width = int(node.shape.width)
    return fast_weights(node.map, own_core(node, core), heads, width, width, 0, folded=True)


def adaptive_momentum(node: Adaptive, heads: int) -> int:
    """Numbers in the momentum of an adaptive projection, per sequence."""
    return map_weights(node.map, int(node.shape.width), int(node.shape.width)) * heads


def projections(instance: MemoryInstance) -> Cost:
    """The static weights in a memory's pipelines, learned outside."""
    total = Cost()
    for _, flow in (*instance.locals, *instance.flows.items()):
        total += static(flow)
    if instance.apart is None:
        return total
    written, asked = (sum((static(flow) for flow in side.values()), Cost()) for side in sides(instance))
    reads = instance.apart.before + instance.apart.after
    return Cost(total.parameters, written.state + reads * asked.state, written.flops + reads * asked.flops)


def combination(chain: ChainInstance) -> Cost:
    """What makes the answers of independent levels one: a weight for each, or for each and feature."""
    width, levels = int(chain.width), len(chain.levels)
    mixed = 2 * levels * width
    if chain.combine == "gated":
        return Cost(levels * width, 0, 2 * levels * width + mixed)
    return Cost(levels if chain.combine in ("weighted", "weighted softmax") else 0, 0, mixed)


def chain_level(level: ChainLevel, width: int) -> Cost:
    """One MLP of a chain."""
    weights = sum(r * c for r, c in level.map.weights(width, width))
    return Cost(weights + (width if level.map.norm else 0), 0, 2 * weights)
