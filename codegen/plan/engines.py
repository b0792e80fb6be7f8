"""Which engine fits a memory, decided by its algebra and never by its name.

Each row of `rows` states what an engine asks of a `Core`.  The first that fits is taken; where none does, the
token loop runs, and the obstacles say why (`nldsl explain`).
"""

from __future__ import annotations

from nldsl.codegen.plan.engine import GATES, Choice, Engine, Setting
from nldsl.codegen.plan.rows import ENGINES
from nldsl.resolve.expanded import Core

TOKEN_LOOP = Engine(
    "token loop",
    "token_loop",
    "reference",
    "f",
    "the definition itself, token by token: exact, and slow",
    lambda c: [],
    lambda core: reference_keywords(core),  # noqa: PLW0108 -- defined below
    (*GATES, "erase", "weight", "objective_parameter"),
)


def choose(core: Core) -> Choice:
    """The first engine that fits."""
    missed: list[tuple[Engine, tuple[str, ...]]] = []
    for engine in ENGINES:
        obstacles = engine.obstacles(core)
        if not obstacles:
            return Choice(engine, engine.keywords(core), _given(engine, core), tuple(missed))
        missed.append((engine, tuple(obstacles)))
    return reference(core, tuple(missed))


def reference(core: Core, missed: tuple[tuple[Engine, tuple[str, ...]], ...] = ()) -> Choice:
    """The token loop for this memory."""
    return Choice(TOKEN_LOOP, reference_keywords(core), _given(TOKEN_LOOP, core), missed)


def _given(engine: Engine, core: Core) -> tuple[str, ...]:
    """Which of the engine's gates the memory has."""
    gates = {name: getattr(core, name) != "none" for name in GATES} | {
        "erase": core.erase,
        "weight": core.weighted,
        "objective_parameter": core.parametric,
    }
    return tuple(name for name in engine.inputs if gates[name])


def reference_keywords(core: Core) -> dict[str, Setting]:
    """All settings of the token loop that differ from its defaults."""
    words: dict[str, object] = {"map": map_settings(core), "objective": core.objective, "rule": core.rule}
    if core.objective_parameter is not None:
        words["objective_parameter"] = core.objective_parameter
    if core.rule_parameter is not None:
        words["rule_parameter"] = core.rule_parameter
    defaults: dict[str, object] = {
        "update": 1,
        "anchor": "retained",
        "read": "after",
        "window": None,
        "normalise": False,
        "constrain": (),
        "partial": "drop",
    }
    words |= {
        name: getattr(core, name) for name, default in defaults.items() if getattr(core, name) != default
    }
    if core.gradient != "through":
        words["gradient"] = core.gradient
    elif core.gradient_tokens is not None:
        words["gradient"] = ("through", core.gradient_tokens)
    return words  # type: ignore[return-value]


def map_settings(core: Core) -> dict[str, str | int | bool | None]:
    """The map as plain settings."""
    one = core.map
    match one.kind:
        case "mlp":
            return {
                "kind": "mlp",
                "hidden": int(one.hidden or 0),
                "depth": one.depth,
                "residual": one.residual,
                "norm": one.norm,
                "activation": one.activation,
            }
        case "swiglu":
            return {"kind": "swiglu", "hidden": int(one.hidden or 0)}
        case "cache":
            return {"kind": "cache", "window": one.window} | ({"sinks": one.sinks} if one.sinks else {})
        case _:
            return {"kind": one.kind}


__all__ = [
    "ENGINES",
    "TOKEN_LOOP",
    "Choice",
    "Engine",
    "choose",
    "map_settings",
    "reference",
    "reference_keywords",
]
