"""Which engine each memory gets, why, what it costs, and what keeps it from a faster one; in words."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from textwrap import wrap
from typing import TYPE_CHECKING

from nldsl.api import chains, rule_words
from nldsl.levels import costs
from nldsl.levels.build import DEFAULT_LENGTH
from nldsl.levels.draw.words import count, size
from nldsl.resolve.expanded import ChainInstance, Core, Expanded, MemoryInstance
from nldsl.resolve.recognised import recognised
from nldsl.resolve.spelling import anchor, constrain, every, gradient, many, mapping, objective, rule, setting

if TYPE_CHECKING:
    from nldsl.codegen.plan.engine import Choice, Engine
    from nldsl.codegen.plan.projections import Group

WIDTH = 100
HELD = "\N{NO-BREAK SPACE}"
LABEL = 14  # columns before the text of a row


def plan(expanded: Expanded) -> str:
    """For each memory its engine, why it fits, its tile and cost, and what stands in the way of an engine;
    for each chain its levels, their clocks, starts and lives; for each outer level its rule.
    """
    parts = {i.path: i for i, _ in expanded.instances() if isinstance(i, MemoryInstance | ChainInstance)}
    length = expanded.training.data.length if expanded.training is not None else DEFAULT_LENGTH
    said = [
        one_memory(part, length) if isinstance(part, MemoryInstance) else one_chain(part, length)
        for part in parts.values()
    ]
    if not any(isinstance(part, MemoryInstance) or part.scope == "sequence" for part in parts.values()):
        said.append(f"{expanded.name} has no memory inside the sequence, so no engine is chosen.\n")
    for heading, rows in rule_words.levels(expanded):
        said.append(
            "\n".join([heading, *(line for label, text in rows for line in _row(label, text))]) + "\n"
        )
    return "\n".join(said)


def one_chain(chain: ChainInstance, length: int = DEFAULT_LENGTH) -> str:
    """What one chain does; `length` counts the tokens of a sequence."""
    rows = chains.rows(chain, length)
    return "\n".join([chain.path, *(line for label, text in rows for line in _row(label, text))]) + "\n"


def one_memory(memory: MemoryInstance, length: int = DEFAULT_LENGTH) -> str:
    """The choice for one memory; `length` counts the tokens of a sequence, for what grows with them."""
    from nldsl.codegen.plan.projections import looped

    rows = [("algebra", algebra(memory))]
    rows += _self_modifying(memory) if looped(memory) else _by_itself(memory)
    rows += [("cost", cost(memory, length))]
    return "\n".join([memory.path, *(line for label, text in rows for line in _row(label, text))]) + "\n"


def _row(label: str, text: str) -> list[str]:
    """A label and its text, wrapped between values and never inside one."""
    whole = re.sub(
        r"`[^`]*`| = (every )?(\d+ tokens?\b)?|every \d+ tokens?\b", lambda m: m[0].replace(" ", HELD), text
    )
    lines = wrap(whole, WIDTH - LABEL, break_on_hyphens=False, break_long_words=False)
    rows = [line.replace(HELD, " ") for line in lines]
    return [f"  {label if n == 0 else '':<{LABEL - 2}}{row}" for n, row in enumerate(rows)]


def _by_itself(memory: MemoryInstance) -> list[tuple[str, str]]:
    """A memory that is fed from outside: one engine does all of it."""
    from nldsl.api.advice import rests_on
    from nldsl.codegen.plan.engines import TOKEN_LOOP, choose
    from nldsl.codegen.plan.gradients import gradient_note

    choice = choose(memory.core)
    engine = choice.engine
    rows = [("engine", f"{named(engine)}: {engine.summary}")]
    if engine is TOKEN_LOOP:
        return [*rows, *_missed(memory.core), *_nearly(memory)]
    needed = rests_on(memory.core, engine)
    rows += [("rests on", ", ".join(needed))] if needed else []
    settings = ", ".join(_settings(choice, memory.core))
    rows += [("settings", settings)] if settings else []
    note = gradient_note(engine, memory.core)
    rows += [("gradient", note)] if note else []
    return [*rows, ("tile", tile_words(choice, memory.core))]


def _settings(choice: Choice, core: Core) -> tuple[str, ...]:
    """The settings of the engine, each as the field that it comes from."""
    return tuple(dict.fromkeys(setting(name, value, core) for name, value in choice.keywords.items()))


def named(engine: Engine) -> str:
    """An engine with its row in the reference."""
    return f"{engine.name} ({engine.reference})"


def _missed(core: Core) -> list[tuple[str, str]]:
    """What stands in the way of the nearest engine, and what to write instead."""
    from nldsl.api.advice import ways

    found = ways(core)
    if not found:
        return [("in the way", "more than two fields: no engine has this algebra")]
    best = found[0]
    # Of the other ways, one to each further engine.
    others = {way.engine.name: way for way in reversed(found[1:]) if way.engine.name != best.engine.name}
    rows = [
        ("in the way", f"{' and '.join(c.now for c in best.changes)}, for {named(best.engine)}"),
        ("instead", f"{' and '.join(c.instead for c in best.changes)}"),
    ]
    for way in list(reversed(others.values()))[:2]:
        changes = " and ".join(c.instead for c in way.changes)
        rows.append(("or", f"{changes}, for {named(way.engine)}"))
    return rows


def _nearly(memory: MemoryInstance) -> list[tuple[str, str]]:
    """The word that a declared rule would be if its rate did not follow the token."""
    declared = memory.core.optimizer
    if declared is None:
        return []
    shapes = memory.core.map.weights(int(memory.key_width), int(memory.value_width))
    known = recognised(declared, shapes)
    if known is None or not known.one_rate:
        return []
    return [("nearly", f"with one rate for all tokens, `{declared.name}` has the formulas of `momentum`")]


def _self_modifying(memory: MemoryInstance) -> list[tuple[str, str]]:
    """A memory whose projections or targets are its own: read at a period's start, written at its end."""
    from nldsl.codegen.plan.projections import fold, groups, obstacles

    found = obstacles(memory)
    if found:
        return [
            ("engine", "none, and no token loop either: code cannot be made"),
            ("in the way", "; ".join(found)),
        ]
    chosen = fold(memory.core)
    stacks = groups(memory)
    periods = sorted({group.period for group in stacks})
    spans = " or ".join(many(period) for period in periods)
    each = "all memories are" if len(periods) == 1 else "those whose period ends are"
    how = f"everything of a period of {spans} is read at its start, then {each} written together"
    rows = [("engine", f"self-modifying, folded by `{chosen.function}` ({chosen.reference}): {how}")]
    rows += [("writes", _writes(memory, stacks))]
    piece = min(periods)
    return [*rows, ("tile", f"{many(piece)}, {'a' if len(periods) == 1 else 'the shortest'} period")]


def _writes(memory: MemoryInstance, stacks: tuple[Group, ...]) -> str:
    """The memories that are written, with their periods where they have several."""
    names = list(dict.fromkeys(name for name, _ in memory.adaptives()))
    if not names:
        return "itself, towards its own answers"
    periods = {slot.field: slot.period for group in stacks for slot in group.slots}
    if len(set(periods.values())) == 1:
        return f"itself, and its projections of {', '.join(names)}"
    own = f"itself {every(memory.core.period)}"
    return ", ".join([own, *(f"its projection of {name} {every(periods[name])}" for name in names)])


def cost(memory: MemoryInstance, length: int) -> str:
    """FLOPs for each token, and running state for each sequence, of a memory without its projections."""
    found = costs.memory(memory, length)
    state, flops = found.state - costs.projections(memory).state, found.flops
    held = int(memory.heads)
    for _, node in memory.adaptives():
        more = costs.adaptive(node, memory.core, held)
        state, flops = state + more.state, flops + more.flops
        if memory.core.momentum != "none":
            state += costs.adaptive_momentum(node, held)
    if memory.core.momentum != "none":
        state += costs.momentum_state(memory, length)
    if memory.core.optimizer is not None:
        state += sum(costs.rule_numbers(memory, one, length) for one in memory.core.optimizer.memories)
    grows = f" after {length} tokens" if memory.core.map.kind == "cache" else ""
    return (
        f"{count(flops)} FLOPs per token{grows}; state {state:,} numbers per sequence "
        f"({size(state * costs.BYTES)})"
    )


def tile_words(choice: Choice, core: Core) -> str:
    """How many tokens the engine works on at once."""
    tile = default_tile(choice.engine)
    if core.window is not None and core.period == 1 and tile is not None:
        return f"up to {many(tile)}, fewer where the window is long"
    if core.period == 1:
        return "the whole sequence" if tile is None else many(tile)
    most = core.period if tile is None else tile_in(core.period, tile)
    parts = core.period // most
    return f"{many(most)}, {'a period' if parts == 1 else f'{parts} to a period'}"


def default_tile(engine: Engine) -> int | None:
    """The tile an engine's function works with, read from its text; None where it has none of its own."""
    text = files("nldsl.codegen.engines").joinpath(f"{engine.file}.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == engine.function:
            given = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            values = {a.arg: d.value for a, d in given if isinstance(d, ast.Constant)}
            return values.get("tile")  # type: ignore[return-value]
    return None


def tile_in(period: int, tile: int) -> int:
    """The largest divisor of `period` up to `tile`, the period itself where that would be tiny: what the
    engines' own `tiles.tiling` gives.
    """
    best = max(size for size in range(1, min(period, tile) + 1) if period % size == 0)
    return best if 4 * best >= min(period, tile) else period


def algebra(memory: MemoryInstance) -> str:
    """What engines are chosen by: map, objective, rule, gates and clocks."""
    core = memory.core
    gates = [
        f"{n} per {kind}" for n in ("rate", "retain", "momentum") if (kind := getattr(core, n)) != "none"
    ]
    if core.map.kind == "cache":
        reach = f"the last {core.map.window} tokens" if core.map.window else "all tokens"
        reach += f" and the first {core.map.sinks}" if core.map.window and core.map.sinks else ""
        return f"a cache of {reach}, read by {core.rule}"
    words = [f"map = {mapping(core.map)}", f"objective = {objective(core)}", f"rule = {rule(core)}"]
    words[-1] += f" (the formulas of `{core.written_rule}`)" if core.written_rule else ""
    words += [f"update = {every(core.update)}"]
    words += [] if core.rule == "ridge" else [f"anchor = {anchor(core)}"]  # it solves, and steps from nowhere
    words += [f"read = {core.read}"]
    others = {
        f"window = {many(core.window or 1)}": core.window is not None,
        "erase apart": core.erase,
        "normalise = sum": core.normalise,
        f"writes = {core.writes}": core.writes > 1,
        f"gradient = {gradient(core)}": gradient(core) != "through",
        f"target = self{' |> unit' * core.target_unit}": core.target == "self",
        f"partial = {core.partial}": core.partial != "drop",
        f"constrain = {constrain(core)}": bool(core.constrain),
    }
    return ", ".join([*words, *gates, *(text for text, there in others.items() if there)])
