"""Which engine fits a memory, decided by its algebra and never by its name.

Each row of `rows` states what an engine asks of a `Core`.  The first that fits is taken; where none does, the
token loop runs, and the obstacles say why (`nldsl explain`).
"""

from __future__ import annotations

from nldsl.codegen.plan.engine import GATES, Choice, Engine
from nldsl.codegen.plan.keywords import map_settings, reference_keywords
from nldsl.codegen.plan.rows import ENGINES
from nldsl.resolve.expanded import Core

TOKEN_LOOP = Engine(
    "token loop",
    "token_loop",
    "reference",
    "f",
    "the definition itself, token by token: exact, and slow",
    lambda c: [],
    reference_keywords,
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
