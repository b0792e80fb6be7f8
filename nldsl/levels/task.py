"""Levels of the task with weights of each sequence, in the level graph.

They learn inside the sequence, from the next-token loss of the tokens that were read, and begin at a start
that an outer level learns.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.levels import costs, rules
from nldsl.levels.graph import Clock, Component, Edge
from nldsl.levels.outer import OuterLevel, Weights
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.expanded import ChainInstance, ChainLevel


def learns_within(level: ChainLevel) -> bool:
    """Whether a level has weights of each sequence that learn from the task."""
    return level.rate is not None and level.memory is None


def resets(level: ChainLevel, chain: ChainInstance) -> tuple[Clock, ...]:
    """When the weights return to their start inside the sequence: by a clock, or when a level changes.

    A return is a change as well, so a level returns whenever the one that it returns with does.
    """
    found: list[Clock] = []
    passed: list[str] = []
    while level.reset_with is not None and level.name not in passed:
        passed.append(level.name)
        parent = next((one for one in chain.levels if one.name == level.reset_with), None)
        if parent is None:
            break
        found += [parent.clock] if parent.clock.unit != "never" else []
        level = parent
    found += [level.reset] if level.reset is not None else []
    return tuple(one for n, one in enumerate(found) if not any(_covers(other, one) for other in found[:n]))


def _covers(clock: Clock, other: Clock) -> bool:
    """Whether `clock` is due whenever `other` is."""
    return clock == other or (not (clock.offset or other.offset) and other.period % clock.period == 0)


def teacher_within(level: ChainLevel, chain: ChainInstance) -> ChainLevel | None:
    """The level of the same chain that teaches where this one returns to inside the sequence."""
    if level.start != "learned in" or not resets(level, chain):
        return None
    teacher = next((one for one in chain.levels if one.name == level.teacher), None)
    return teacher if teacher is not None and learns_within(teacher) else None


def clocks(chains: list[ChainInstance]) -> frozenset[tuple[int, int]]:
    """Period and offset of all that ends a segment."""
    found: set[tuple[int, int]] = set()
    for chain in chains:
        for level in filter(learns_within, chain.levels):
            found |= {(one.period, one.offset) for one in (level.clock, *resets(level, chain))}
    return frozenset(found)


def cost(level: ChainLevel, chain: ChainInstance, ends: frozenset[tuple[int, int]]) -> costs.Cost:
    """What a level learns outside, holds for a sequence (without momentum), and does for a token.

    A token is read, its error is passed on, and its gradient taken: two FLOPs for each weight and each of
    these.  The weights are held once, and what has gathered of a gradient where other levels change in
    between; a start that another level teaches is held likewise.
    """
    still = costs.chain_level(level, int(chain.width))
    weights = still.flops // 2
    teacher = teacher_within(level, chain)
    held = sum(
        weights * (2 if ends != frozenset({(one.clock.period, one.clock.offset)}) else 1) + 1
        for one in (level, teacher)
        if one is not None
    )
    return costs.Cost(still.parameters, held, 3 * still.flops)


def momentum(level: ChainLevel, chain: ChainInstance) -> int:
    """Numbers in the momentum of a level, and of the start that another level teaches."""
    weights = costs.chain_level(level, int(chain.width)).flops // 2
    teacher = teacher_within(level, chain)
    return weights * sum(one is not None and one.momentum > 0 for one in (level, teacher))


def components(
    one: Weights, level: OuterLevel | None, ends: frozenset[tuple[int, int]], taught_by: str
) -> tuple[list[Component], list[Edge]]:
    """The component of a level's weights, that of its momentum, and where it starts from.

    `one` is the start as the outer `level` learns it, `taught_by` the component that changes it there.
    """
    holder, chain = one.holder, one.owner
    assert isinstance(holder, ChainLevel) and isinstance(chain, ChainInstance)
    spent = cost(holder, chain, ends)
    own = Component(
        one.path,
        "memory",
        holder.clock,
        float(holder.clock.period),
        0,
        "the task",
        holder.rule.name if holder.rule is not None else "gd",
        spent.parameters,
        spent.state * costs.BYTES,
        True,
        spent.flops,
        one.copies,
        level.name if level is not None else None,
        one.depth,
        holder.span,
        holder.start if holder.teacher is None else f"{holder.start} {holder.teacher}",
        f"with {holder.reset_with}" if holder.reset_with is not None else str(holder.reset or ""),
    )
    edges = [Edge(taught_by, one.path, "starts from")] if taught_by else []
    teacher = teacher_within(holder, chain)
    if teacher is not None:
        edges.append(Edge(teacher.path, one.path, "starts from"))
    if holder.rule is not None and holder.rule.algorithm is not None:
        return _with_rule(own, edges, holder.rule.algorithm, holder, chain)
    held = momentum(holder, chain)
    if not held:
        return [own], edges
    average = Component(
        f"{one.path}.momentum",
        "momentum",
        holder.clock,
        float(holder.clock.period),
        0,
        "gradients of the memory",
        "average",
        0,
        held * costs.BYTES,
        True,
        0,
        one.copies,
        None,
        one.depth,
        holder.where("momentum"),
    )
    return [own, average], [*edges, Edge(average.path, one.path, "is generated by")]


def _with_rule(
    own: Component, edges: list[Edge], rule: Algorithm, level: ChainLevel, chain: ChainInstance
) -> tuple[list[Component], list[Edge]]:
    """What a declared rule keeps for each sequence, beside the level that it serves."""
    shapes = level.map.weights(int(chain.width), int(chain.width))
    found = [own]
    edges = list(edges)
    for memory in rule.memories:
        clock = Clock(level.clock.period * rule.period(memory), "token", offset=level.clock.offset)
        held = sum(memory.holds(rows, columns) for rows, columns in shapes)
        found.append(
            replace(
                own,
                path=f"{own.path}.{rule.name}.{memory.name}",
                kind="momentum",
                clock=clock,
                tokens_per_update=float(clock.period),
                learns_from=rules.learns_from(memory),
                rule="gd(implicit)" if memory.implicit else "gd",
                parameters=0,
                state_bytes=held * costs.BYTES,
                flops_per_token=0,
                taught_by=None,
                span=memory.span,
                start="",
                reset="",
            )
        )
        edges.append(Edge(found[-1].path, own.path, "is generated by"))
    return found, edges
