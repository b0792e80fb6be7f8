"""Three layers of memory: which component belongs to which, what it holds, and how long that lives.

*Weights* hold general knowledge: all sequences share them, and checkpoints keep them.  The *cache* holds
intermediate results: fast weights that each sequence writes for itself.  The *context* holds what is at hand:
keys and values as they came, without weights (Nested Learning, section 3: parametric and non-parametric
memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap
from typing import Literal

from nldsl.levels.costs import BYTES
from nldsl.levels.draw.words import amount, clock_words, columns, count, plain, short_path, size
from nldsl.levels.graph import Component, LevelGraph
from nldsl.records import record
from nldsl.resolve.expanded import Expanded, MemoryInstance

LayerName = Literal["weights", "cache", "context"]
HOLDS: dict[LayerName, str] = {
    "weights": "general knowledge",
    "cache": "intermediate results",
    "context": "what is at hand",
}
SHARED_LIFE = "in the checkpoint, from run to run"
SEQUENCE_LIFE = "for one sequence"


@record
class Held:
    """What one component holds, in one layer.

    `numbers` and `bytes` are those of one of the `copies` (fp32), for each sequence where the layer is not
    `weights`.  The rest are words: what it learns from, when it changes, how long it lives, who can see it,
    and what becomes of it at test time.
    """

    path: str
    layer: LayerName
    copies: int
    numbers: int
    learns: str
    changes: str
    lives: str
    seen: str
    at_test_time: str

    @property
    def bytes(self) -> int:
        """Bytes of one copy, in fp32."""
        return self.numbers * BYTES

    @property
    def facts(self) -> tuple[str, ...]:
        """What components of one group have in common."""
        return (self.learns, self.changes, self.lives, self.seen, self.at_test_time)


def held(expanded: Expanded, graph: LevelGraph) -> tuple[Held, ...]:
    """What every component of `graph` holds: weights, then cache, then context, each fast to slow.

    The learned start of a memory is a weight; what a sequence makes of it is in the cache.
    """
    instances = [instance for instance, _ in expanded.instances()]
    memories = {one.path: one for one in instances if isinstance(one, MemoryInstance)}
    found: list[Held] = []
    for part in graph.components:
        if part.per_sequence:
            found.append(_of_a_sequence(part, _around(part.path, memories)))
            if part.parameters:
                found.append(_start(part, graph))
        elif part.kind == "optimizer":
            found.append(_of_a_rule(part, graph))
        else:
            found.append(_shared(part))
    order = list(HOLDS)
    return tuple(sorted(found, key=lambda one: order.index(one.layer)))


def _around(path: str, memories: dict[str, MemoryInstance]) -> MemoryInstance | None:
    """The memory at `path`, or that it is a part of: its momentum, an adaptive projection."""
    while path and path not in memories:
        path = path.rpartition(".")[0]
    return memories.get(path)


def _of_a_sequence(part: Component, memory: MemoryInstance | None) -> Held:
    layer: LayerName = "context" if part.kind == "cache" else "cache"
    lives, test = SEQUENCE_LIFE, "goes on learning"
    if layer == "context":
        test = "goes on"
        window = memory.core.map.window if memory is not None else None
        sinks = memory.core.map.sinks if memory is not None else 0
        if window:
            lives = f"for {amount(window, 'token')}" + (f", the first {sinks} for all of it" if sinks else "")
    elif memory is not None and not memory.plastic:
        test = "stands still"
    return Held(
        part.path,
        layer,
        part.copies,
        part.state_bytes // BYTES,
        "nothing: keys and values are kept as they came"
        if layer == "context"
        else f"{part.learns_from}, by {part.rule}",
        "with every token" if layer == "context" else _when(part),
        lives,
        "its own sequence",
        test,
    )


def _start(part: Component, graph: LevelGraph) -> Held:
    """The learned start of a memory, which the outer level `taught_by` learns."""
    teacher = next(
        (c for c in graph.components if c.taught_by == part.taught_by and not c.per_sequence), None
    )
    return Held(
        f"{part.path} (start)",
        "weights",
        part.copies,
        part.parameters,
        f"the task, by {teacher.rule}" if teacher is not None else "the task",
        _when(teacher) if teacher is not None else "with its level",
        SHARED_LIFE,
        "every sequence",
        "stands still",
    )


def _of_a_rule(part: Component, graph: LevelGraph) -> Held:
    served = _served(part.path, graph)
    plastic = any(one.plastic for one in served)
    weights = bool(served) and all(one.kind != "optimizer" for one in served)
    return Held(
        part.path,
        "weights",
        part.copies,
        part.state_bytes // BYTES,
        "gradients",
        _when(part),
        SHARED_LIFE,
        "the weights it serves" if weights else "its rule",
        "goes on with its level, in a copy for each stream" if plastic else "stands still",
    )


def _served(path: str, graph: LevelGraph) -> list[Component]:
    """What a memory of a rule changes, also by way of other memories of the rule."""
    found: dict[str, Component] = {}
    left = [path]
    while left:
        source = left.pop()
        for edge in graph.edges:
            if edge.source == source and edge.kind == "is generated by" and edge.target not in found:
                found[edge.target] = graph[edge.target]
                left.append(edge.target)
    return [one for one in found.values() if one.kind != "optimizer"] or list(found.values())


def _shared(part: Component) -> Held:
    frozen = part.kind == "frozen"
    lives = SHARED_LIFE
    if part.reset not in ("", "never"):
        lives = f"until its reset, {part.reset}"
    return Held(
        part.path,
        "weights",
        part.copies,
        part.parameters,
        "nothing" if frozen else f"{part.learns_from}, by {part.rule}",
        "never" if frozen else _when(part),
        lives,
        "every sequence",
        "goes on learning, in a copy for each stream" if part.plastic else "stands still",
    )


def _when(part: Component) -> str:
    return clock_words(part.clock, part.tokens_per_update)


# --------------------------------------------------------------------------- as text and data


def as_text(expanded: Expanded, graph: LevelGraph, *, width: int = 100) -> str:
    """The report `explain SPEC --memory`: the layers, in each the components that share their facts."""
    parts = held(expanded, graph)
    lines = [f"{plain(graph.name)}: three layers of memory", ""]
    for layer, holds in HOLDS.items():
        mine = [one for one in parts if one.layer == layer]
        lines += [f"{layer}: {holds}", *(_layer(mine, layer, width) if mine else ["   nothing"]), ""]
    return "\n".join(line.rstrip() for line in lines)


def _layer(parts: list[Held], layer: LayerName, width: int) -> Iterator[str]:
    numbers = sum(one.numbers * one.copies for one in parts)
    whose = "shared by all sequences" if layer == "weights" else "for each sequence"
    yield f"   {count(numbers)} numbers, {size(numbers * BYTES)}, {whose}"
    names = [_name(one) for one in parts]
    room = min(max(map(columns, names)), width - 30)
    order = {facts: n for n, facts in reversed([*enumerate(one.facts for one in parts)])}
    for facts, group in groupby(sorted(parts, key=lambda one: order[one.facts]), key=lambda one: one.facts):
        learns, changes, lives, seen, test = facts
        yield ""
        for fact in (
            f"learns from {learns}",
            f"changes {changes}; lives {lives}",
            f"seen by {seen}; at test time {test}",
        ):
            yield from wrap(plain(fact), width, initial_indent=" " * 3, subsequent_indent=" " * 5)
        for one in group:
            name = short_path(_name(one), room)
            gap = " " * (room - columns(name))
            total = one.numbers * one.copies
            yield f"      {name}{gap}  {count(total):>6}  {size(total * BYTES):>8}"


def _name(one: Held) -> str:
    return plain(one.path) + (f" x{one.copies}" if one.copies > 1 else "")


def as_data(expanded: Expanded, graph: LevelGraph) -> list[dict[str, object]]:
    """The same as plain dicts: what `layers` in a build's `levels.json` holds."""
    return [
        {
            "path": one.path,
            "layer": one.layer,
            "holds": HOLDS[one.layer],
            "copies": one.copies,
            "numbers": one.numbers,
            "bytes": one.bytes,
            "per_sequence": one.layer != "weights",
            "learns_from": one.learns,
            "changes": one.changes,
            "lives": one.lives,
            "seen_by": one.seen,
            "at_test_time": one.at_test_time,
        }
        for one in held(expanded, graph)
    ]


__all__ = ["HOLDS", "Held", "as_data", "as_text", "held"]
