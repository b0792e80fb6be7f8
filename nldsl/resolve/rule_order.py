"""What a rule does in which order, and what of it need not be done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nldsl.resolve.algorithm import (
    Algorithm,
    Formula,
    Local,
    Operation,
    Recall,
    RuleMemory,
    Signal,
    constant,
)
from nldsl.resolve.formulas import replaced


def folded(made: Algorithm) -> Algorithm:
    """The same without memories that keep nothing: what was written last is all that they hold.

    That is an average whose rate is 1, or a memory whose `retain` is 0: RMSProp's momentum at 0.
    """
    kept = [m for m in made.memories if _value_alone(m, made) is None]
    if len(kept) == len(made.memories):
        return made
    values = [(m.name, v) for m in made.memories if (v := _value_alone(m, made)) is not None]
    names = {name for name, _ in values}

    def change(node: Formula) -> Formula | None:
        if isinstance(node, Recall) and node.memory in names:
            return Local(node.kind, node.memory, axes=node.axes, span=node.span)
        return None

    return replace(
        made,
        memories=tuple(changed(m, change) for m in kept),
        locals=tuple((n, replaced(f, change)) for n, f in (*made.locals, *values)),
        weight=replaced(made.weight, change),
    )


def changed(memory: RuleMemory, change: object) -> RuleMemory:
    """A memory with every part of its formulas for which `change` gives another one."""
    new = {
        name: replaced(value, change)  # type: ignore[arg-type]
        for name in ("value", "key", "rate", "retain", "update")
        if (value := getattr(memory, name)) is not None
    }
    return replace(memory, **new)


def _value_alone(memory: RuleMemory, made: Algorithm) -> Formula | None:
    """What a memory holds after a write, where that is nothing of what it held before."""
    plain = memory.map.kind == "vector" and memory.key is None and memory.update is None
    if not plain or memory.read == "before" or memory.name in _reads(memory.formulas()):
        return None
    rate = constant(memory.rate, made.options)
    if memory.retain is None:
        return memory.value if rate == 1 and memory.objective == "l2" else None
    retain = constant(memory.retain, made.options)
    if retain == 0:
        value = memory.value
        return (
            value
            if rate == 1
            else Operation("tensor", "*", memory.rate, value, axes=value.axes, span=value.span)
        )
    return memory.value if retain == 1 and rate == 1 and memory.objective == "l2" else None


def pruned(made: Algorithm) -> Algorithm:
    """The same without memories and values that the weights do not depend on."""
    local, memory = dict(made.locals), {m.name: m for m in made.memories}
    wanted, waiting = set[str](), [made.weight]
    while waiting:
        for name in _reads((waiting.pop(),)):
            if name in wanted:
                continue
            wanted.add(name)
            waiting += [local[name]] if name in local else memory[name].formulas()
    return replace(
        made,
        memories=tuple(m for m in made.memories if m.name in wanted),
        locals=tuple((n, f) for n, f in made.locals if n in wanted),
    )


def _reads(formulas: Iterable[Formula]) -> set[str]:
    """The memories and named values in formulas."""
    found: set[str] = set()
    for node in (n for f in formulas for n in f.walk()):
        if isinstance(node, Local):
            found.add(node.name)
        elif isinstance(node, Recall):
            found.add(node.memory)
    return found


def ordered(made: Algorithm, places: dict[str, int]) -> tuple[str, ...] | list[str]:
    """The names of a rule in an order in which it can be done; a list where names form a circle.

    Who reads a memory after its write stands behind it, who reads it as it was stands in front of it, and
    everything that reads the weights stands before they change.
    """
    old = {m.name for m in made.memories if m.read == "before"}
    parts: dict[str, tuple[Formula, ...]] = {m.name: m.formulas() for m in made.memories}
    parts |= {name: (formula,) for name, formula in made.locals}
    parts["weight"] = (made.weight,)
    behind: dict[str, set[str]] = {name: set() for name in parts}  # what has to stand before each
    for name, formulas in parts.items():
        for read in _reads(formulas):
            if read not in old:
                behind[name].add(read)
            elif read != name:
                behind[read].add(name)
        weights = any(isinstance(n, Signal) and n.name == "weight" for f in formulas for n in f.walk())
        if weights and name != "weight":
            behind["weight"].add(name)
    order: list[str] = []
    left = sorted(parts, key=lambda name: places.get(name, 0))
    while left:
        ready = next((n for n in left if behind[n] <= set(order)), None)
        if ready is None:
            return _ring(behind, left)
        order.append(ready)
        left.remove(ready)
    return tuple(order)


def _ring(behind: dict[str, set[str]], left: list[str]) -> list[str]:
    """One circle among names that all wait for another of them."""
    path = [left[0]]
    while True:
        following = next(n for n in left if n in behind[path[-1]])
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
