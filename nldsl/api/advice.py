"""What an engine rests on, and what keeps a memory from one: found by changing one field at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from nldsl.codegen.plan.engine import Engine
from nldsl.codegen.plan.engines import TOKEN_LOOP, choose
from nldsl.codegen.plan.projections import loop_obstacles
from nldsl.records import record
from nldsl.resolve import spelling
from nldsl.resolve.expanded import Core

PERIOD = 16  # tokens of the periods that are proposed


@record
class Change:
    """Another value of one field: which field, what is said there now, what to write instead, and the
    algebra with it.
    """

    field: str
    now: str
    instead: str
    core: Core


@record
class Way:
    """A way to an engine: the changes that lead there together, and the engine."""

    changes: tuple[Change, ...]
    engine: Engine


def alternatives(core: Core) -> tuple[Change, ...]:
    """What could be written in place of what stands in each field, the smallest changes of meaning first."""
    return tuple(
        change for change in (*_left_out(core), *_clocks(core), *_learning(core)) if change.core != core
    )


def _left_out(core: Core) -> Iterator[Change]:
    """Fields that can be left out."""
    gates = [name for name in ("rate", "retain", "momentum") if getattr(core, name) == "channel"]
    if core.gradient_tokens is not None or core.gradient != "through":
        yield Change(
            "gradient",
            f"`gradient = {spelling.gradient(core)}`",
            "`gradient = through`",
            replace(core, gradient="through", gradient_tokens=None),
        )
    if core.normalise:
        yield _without(core, "normalise", "`normalise = sum`", normalise=False)
    if core.window is not None:
        yield _without(core, "window", f"`window = {spelling.many(core.window)}`", window=None)
    if core.constrain:
        yield _without(core, "constrain", f"`constrain = {spelling.constrain(core)}`", constrain=())
    if core.erase:
        yield _without(core, "erase", "`erase` apart from the key", erase=False)
    for name in gates:
        yield Change(
            name,
            f"a `{name}` for each channel",
            f"a `{name}` of one number for each head",
            replace(core, **{name: "head"}),
        )
    if core.map.norm:
        plain = replace(core.map, norm=False)
        yield Change(
            "map", "a norm inside the map", f"`map = {spelling.mapping(plain)}`", replace(core, map=plain)
        )


def _clocks(core: Core) -> Iterator[Change]:
    """Fields that say when."""
    boundary = core.update > 1
    for read in ("after", "before") if not boundary else ():
        yield Change("read", f"`read = {core.read}`", f"`read = {read}`", replace(core, read=read))
    for anchor in ("retained", "current") if not boundary else ():
        yield Change(
            "anchor",
            f"`anchor = {spelling.anchor(core)}`",
            f"`anchor = {anchor}`",
            replace(core, anchor=anchor),
        )
    if core.period == 1:
        yield Change(
            "anchor",
            "gradients at every token",
            f"`anchor = every {PERIOD} tokens`",
            replace(core, anchor=PERIOD),
        )
    if boundary:
        yield Change(
            "update",
            f"`update = {spelling.every(core.update)}`",
            "`update` left out" + " and `anchor = retained`" * (core.anchor != "retained"),
            replace(core, update=1, anchor="retained", read="after"),
        )
    for name, parameter, every in core.constrain:
        if every != PERIOD and core.period == 1:
            slower = replace(core, anchor=PERIOD, constrain=((name, parameter, PERIOD),))
            yield Change(
                "constrain",
                f"`constrain = {spelling.constrain(core)}`",
                f"`constrain = {spelling.constrain(slower)}` and `anchor = {spelling.every(PERIOD)}`",
                slower,
            )


def _learning(core: Core) -> Iterator[Change]:
    """Fields that say what is learned, and how."""
    if core.momentum != "none":
        yield _without(core, "momentum", "`momentum`", momentum="none")
    for rule in ("gd", "dgd"):
        other = replace(core, rule=rule, optimizer=None)
        yield Change("rule", f"`rule = {spelling.rule(core)}`", f"`rule = {rule}`", other)
    for objective in ("l2", "dot"):
        other = replace(
            core, objective=objective, objective_parameter=None, expression=None, thresholds=False
        )
        yield Change(
            "objective", f"`objective = {spelling.objective(core)}`", f"`objective = {objective}`", other
        )
    if core.map.kind != "matrix":
        matrix = replace(core.map, kind="matrix", norm=False, residual=False)
        yield Change(
            "map", f"`map = {spelling.mapping(core.map)}`", "`map = matrix`", replace(core, map=matrix)
        )
    if core.map.kind == "mlp" and core.map.depth != 2:
        two = replace(core.map, depth=2)
        yield Change(
            "map",
            f"`map = {spelling.mapping(core.map)}`",
            f"`map = {spelling.mapping(two)}`",
            replace(core, map=two),
        )


def _without(core: Core, field: str, now: str, **values: object) -> Change:
    return Change(field, now, f"`{field}` left out", replace(core, **values))  # type: ignore[arg-type]


def ways(core: Core) -> tuple[Way, ...]:
    """The smallest changes after which an engine fits: single ones, or pairs where no single one does."""
    changes = alternatives(core)
    single = [Way((change,), choose(change.core).engine) for change in changes if _possible(change.core)]
    found = [way for way in single if way.engine is not TOKEN_LOOP]
    if found:
        return tuple(found)
    pairs = []
    for first, second in combinations(changes, 2):
        if first.field == second.field:
            continue
        both = next((c for c in alternatives(first.core) if c.instead == second.instead), None)
        if both is not None and _possible(both.core) and choose(both.core).engine is not TOKEN_LOOP:
            pairs.append(Way((first, second), choose(both.core).engine))
    return tuple(pairs)


def _possible(core: Core) -> bool:
    """Whether the language has such a memory: a cache is read by softmax, and nothing else is."""
    cache = core.map.kind == "cache"
    return cache == (core.rule == "softmax") and not loop_obstacles(core)


def rests_on(core: Core, engine: Engine) -> tuple[str, ...]:
    """The values of a memory's fields that this engine needs: with any other of the usual ones it does not
    fit.
    """
    needed = []
    for _, now, others in _usual(core):
        if others and all(engine.obstacles(other) for other in others):
            needed.append(now)
    return tuple(needed)


def _usual(core: Core) -> Iterator[tuple[str, str, list[Core]]]:
    """Each field with what it says now and the algebra for other usual values of it."""
    maps = [replace(core.map, kind=kind) for kind in ("matrix", "mlp", "cache") if kind != core.map.kind]  # type: ignore[arg-type]
    yield "map", f"`map = {spelling.mapping(core.map)}`", [replace(core, map=one) for one in maps]
    others = [o for o in ("l2", "dot", "lp", "oja") if o != core.objective]
    if core.map.kind != "cache":
        usual = [replace(core, objective=o, expression=None, thresholds=False) for o in others]
        yield "objective", f"`objective = {spelling.objective(core)}`", usual
    rules = [r for r in ("gd", "dgd", "muon") if r != core.rule]
    yield "rule", f"`rule = {spelling.rule(core)}`", [replace(core, rule=r, optimizer=None) for r in rules]
    if core.map.kind == "cache":
        return
    if core.period > 1:
        yield (
            "period",
            f"gradients that stand still for {core.period} tokens",
            [replace(core, anchor="retained", update=1, read="after")],
        )
    else:
        yield (
            "period",
            "an update at every token",
            [replace(core, anchor=PERIOD, update=PERIOD, read="boundary")],
        )
    if core.momentum == "none":
        yield "momentum", "no `momentum`", [replace(core, momentum="head")]
    else:
        yield "momentum", "`momentum`", [replace(core, momentum="none")]
    channels = [n for n in ("rate", "retain", "momentum") if getattr(core, n) == "channel"]
    if channels:
        yield "gates", "gates for each channel", [replace(core, **dict.fromkeys(channels, "head"))]
    elif core.retain == "head" and core.map.kind == "matrix":
        yield "gates", "gates for each head", [replace(core, retain="channel")]
    if core.erase:
        yield "erase", "`erase` apart from the key", [replace(core, erase=False)]
    if core.window is not None:
        yield "window", "a `window`", [replace(core, window=None)]
    if core.constrain:
        yield "constrain", "`constrain`", [replace(core, constrain=())]
    if core.normalise:
        yield "normalise", "`normalise = sum`", [replace(core, normalise=False)]
