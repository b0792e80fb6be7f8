"""Which engine each memory gets, in words."""

from __future__ import annotations

from nldsl.resolve.expanded import Expanded, MemoryInstance


def plan(expanded: Expanded) -> str:
    """For each memory its engine, why it fits, and what keeps each of the others away."""
    memories = {i.path: i for i, _ in expanded.instances() if isinstance(i, MemoryInstance)}
    if not memories:
        return f"{expanded.name} has no memory inside the sequence, so no engine is chosen.\n"
    return "\n".join(one_memory(memory) for memory in memories.values())


def one_memory(memory: MemoryInstance) -> str:
    """The choice for one memory."""
    from nldsl.codegen.plan.engines import choose
    from nldsl.codegen.plan.gradients import gradient_note

    adaptives = [name for name, _ in memory.adaptives()]
    lines = [f"{memory.path}", f"  algebra  {algebra(memory)}"]
    if adaptives:
        return "\n".join([*lines, *_self_modifying(memory, adaptives)]) + "\n"
    choice = choose(memory.core)
    engine = choice.engine
    settings = ", ".join(f"{k} = {v}" for k, v in choice.keywords.items() if not isinstance(v, dict))
    lines.append(f"  engine   {engine.name} ({engine.reference}): {engine.summary}")
    if settings:
        lines.append(f"  settings {settings}")
    if note := gradient_note(engine, memory.core):
        lines.append(f"  gradient {note}")
    lines += [
        f"  not      {missed.name} ({missed.reference}): {', '.join(why)}" for missed, why in choice.missed
    ]
    return "\n".join(lines) + "\n"


def _self_modifying(memory: MemoryInstance, adaptives: list[str]) -> list[str]:
    from nldsl.codegen.plan.projections import fold, obstacles

    found = obstacles(memory)
    if found:
        return [f"  engine   none: {'; '.join(found)}"]
    chosen = fold(memory.core)
    period = memory.core.period
    length = f"{period} token{'s' * (period != 1)}"
    how = f"everything of a period of {length} is read at its start, then all memories are written"
    return [
        f"  engine   self-modifying, folded by `{chosen.function}` ({chosen.reference}): {how}",
        f"  writes   itself, and its projections of {', '.join(adaptives)}",
    ]


def algebra(memory: MemoryInstance) -> str:
    """What engines are chosen by: map, objective, rule, gates and clocks."""
    core = memory.core
    gates = [
        f"{n} per {kind}" for n in ("rate", "retain", "momentum") if (kind := getattr(core, n)) != "none"
    ]
    if core.map.kind == "cache":
        reach = f"the last {core.map.window} tokens" if core.map.window else "all tokens"
        return f"a cache of {reach}, read by {core.rule}"
    words = [f"map = {core.map.kind}", f"objective = {core.objective}", f"rule = {core.rule}"]
    words += [
        f"update = every {core.update} token{'s' * (core.update != 1)}",
        f"anchor = {core.anchor}",
        f"read = {core.read}",
    ]
    return ", ".join([*words, *gates])
