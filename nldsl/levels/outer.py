"""Which outer level learns which weights, and by which clock.

A `train` level names what it learns, or takes the `rest`. What has a clock of its own (a level of a
chain) keeps it: so one `train` level can give several outer levels, which differ in their clocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from nldsl.levels.costs import stage
from nldsl.levels.graph import Clock
from nldsl.records import record
from nldsl.resolve.expanded import (
    Adaptive,
    Apply,
    BlockInstance,
    ChainInstance,
    ChainLevel,
    Expanded,
    Flow,
    Line,
    MemoryInstance,
    Persistent,
    Repeat,
    TrainLevel,
    Use,
)
from nldsl.resolve.primitives import PRIMITIVES


@record
class Weights:
    """Weights that an outer level learns: their spec path, whose they are, and their own clock if they have
    one.

    `holder` is the memory, chain level, block line or model they belong to; `copies` how often they occur.
    """

    path: str
    holder: MemoryInstance | ChainLevel | BlockInstance | None
    owner: BlockInstance | MemoryInstance | ChainInstance | None
    copies: int
    depth: int
    kind: str  # "start", "projections", "chain level", "weights"
    flows: tuple[Flow, ...] = ()
    clock: Clock | None = None


@record
class OuterLevel:
    """Weights with one clock and one rule."""

    name: str
    declared: TrainLevel
    clock: Clock
    reduce: str
    weights: tuple[Weights, ...]


@dataclass(slots=True)
class Assignment:
    """Outer levels, and what went wrong on the way: checks turn it into findings."""

    levels: list[OuterLevel] = field(default_factory=list)
    unlearned: list[Weights] = field(default_factory=list)
    twice: list[tuple[Weights, TrainLevel, TrainLevel]] = field(default_factory=list)
    unmatched: list[tuple[TrainLevel, int]] = field(default_factory=list)
    two_clocks: list[tuple[TrainLevel, Weights]] = field(default_factory=list)


def all_weights(expanded: Expanded) -> list[Weights]:
    """Every set of weights an outer level can learn, in depth order."""
    if expanded.model is None:
        return []
    found: list[Weights] = []
    for line in expanded.model.lines:
        _line(line, expanded.model.name, None, 1, found)
    return _united(found)


def _line(line: Line, path: str, owner: BlockInstance | None, copies: int, found: list[Weights]) -> None:
    here = f"{path}.{line.label}" if line.label else path
    parts = [n for n in line.flow.walk() if isinstance(n, Apply) and n.primitive in PRIMITIVES]
    for node in line.flow.walk():
        if isinstance(node, Apply) and node in parts:
            found.append(
                Weights(f"{here}.{node.primitive}", owner, owner, copies, len(found), "weights", (node,))
            )
        elif isinstance(node, Persistent):
            found.append(Weights(node.path, owner, owner, copies, len(found), "weights", (node,)))
        elif isinstance(node, Use) and node.name is None:
            _instance(node.instance, copies, found)
        elif isinstance(node, Repeat):
            for instance in node.instances:
                _instance(instance, copies * int(node.count), found)


def _instance(
    instance: BlockInstance | MemoryInstance | ChainInstance, copies: int, found: list[Weights]
) -> None:
    if isinstance(instance, BlockInstance):
        for one in instance.every_name():
            _instance(one.instance, copies, found)
        for line in instance.every_line():
            _line(line, instance.path, instance, copies, found)
    elif isinstance(instance, ChainInstance):
        for level in instance.levels:
            if level.memory is not None:
                _instance(level.memory, copies, found)
                continue
            # Weights of each sequence keep their clock inside it; what is learned outside is their start.
            clock = level.clock if instance.scope == "shared" else None
            found.append(Weights(level.path, level, instance, copies, len(found), "chain level", (), clock))
    else:
        flows = tuple(f for _, f in (*instance.locals, *instance.flows.items()))
        found.append(
            Weights(
                f"{instance.path}.projections", instance, instance, copies, len(found), "projections", flows
            )
        )
        if instance.start == "learned" and instance.core.map.kind != "cache":
            found.append(Weights(instance.path, instance, instance, copies, len(found), "start"))
        for name, node in instance.adaptives():
            found.append(
                Weights(
                    f"{instance.path}.{name}.adaptive",
                    instance,
                    instance,
                    copies,
                    len(found),
                    "start",
                    (node,),
                )
            )


def _united(found: list[Weights]) -> list[Weights]:
    """Weights with one path and one owner shape are copies of each other."""
    paths: dict[str, list[Weights]] = {}
    for one in found:
        paths.setdefault(one.path, []).append(one)
    return [_one(several) for several in paths.values()]


def _one(several: list[Weights]) -> Weights:
    """Weights of one path as one: copies where all are alike, else the sum of all of them."""
    kinds: list[tuple[Weights, int]] = []
    for one in several:
        known = next((n for n, (other, _) in enumerate(kinds) if _alike(other, one)), len(kinds))
        count = one.copies + (kinds[known][1] if known < len(kinds) else 0)
        kinds[known : known + 1] = [(kinds[known][0] if known < len(kinds) else one, count)]
    copies = math.gcd(*(count for _, count in kinds))
    flows = tuple(flow for one, count in kinds for _ in range(count // copies) for flow in one.flows)
    return replace(several[0], copies=copies, flows=flows)


def _alike(one: Weights, other: Weights) -> bool:
    """Whether two sets of weights with one path have as much to learn and the same owner."""
    if one.kind != "weights":
        return True
    return [*map(stage, one.flows)] == [*map(stage, other.flows)] and one.owner == other.owner


def matches(pattern: str, path: str) -> bool:
    """Whether the parts of `pattern` stand side by side in `path`: `Continuum.slow` in
    `HopeBlock.store.Continuum.slow`.

    >>> matches("Continuum.slow", "HopeBlock.store.Continuum.slow"), matches("slow.x", "a.slow")
    (True, False)
    """
    wanted, parts = pattern.split("."), path.split(".")
    return any(parts[i : i + len(wanted)] == wanted for i in range(len(parts) - len(wanted) + 1))


def assign(expanded: Expanded) -> Assignment:
    """Give every set of weights to one outer level."""
    result = Assignment()
    weights = all_weights(expanded)
    if expanded.training is None:
        return result
    claims: dict[str, TrainLevel] = {}
    for level in expanded.training.levels:
        for index, pattern in enumerate(level.learns):
            if pattern == "rest":
                continue
            mine = [w for w in weights if matches(pattern, w.path)]
            if not mine:
                result.unmatched.append((level, index))
            for one in mine:
                other = claims.get(one.path)
                if other is not None and other is not level:
                    result.twice.append((one, other, level))
                claims[one.path] = level
    rest = [level for level in expanded.training.levels if "rest" in level.learns]
    groups: dict[tuple[str, Clock], list[Weights]] = {}
    order: dict[tuple[str, Clock], TrainLevel] = {}
    for one in weights:
        level = claims.get(one.path) or (rest[0] if rest else None)
        if level is None:
            result.unlearned.append(one)
            continue
        stated = level.clock.unit != "always"
        if one.clock is not None and stated and one.path in claims:
            result.two_clocks.append((level, one))
        clock = one.clock or (level.clock if stated else Clock(1, "step"))
        groups.setdefault((level.name, clock), []).append(one)
        order[(level.name, clock)] = level
    for extra in rest[1:]:
        result.twice.append((weights[0], rest[0], extra))
    result.levels = [_outer(key, order[key], tuple(group), groups) for key, group in groups.items()]
    result.levels.sort(key=lambda x: (x.clock.unit != "token", x.clock.period))
    return result


def _outer(
    key: tuple[str, Clock],
    level: TrainLevel,
    group: tuple[Weights, ...],
    groups: dict[tuple[str, Clock], list[Weights]],
) -> OuterLevel:
    name, clock = key
    several = [k for k in groups if k[0] == name]
    own = level.clock if level.clock.unit != "always" else Clock(1, "step")
    if len(several) > 1 and clock != own:
        name = f"{name}_{_short(group)}"
    reduce = level.reduce or next(
        (w.holder.reduce for w in group if isinstance(w.holder, ChainLevel)), "mean"
    )
    return OuterLevel(name, level, clock, reduce, group)


def _short(group: tuple[Weights, ...]) -> str:
    names = list(dict.fromkeys(w.path.split(".")[-1] for w in group))
    return "_".join(names)


__all__ = ["Adaptive", "Assignment", "OuterLevel", "Weights", "all_weights", "assign", "matches"]
