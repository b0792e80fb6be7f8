"""Softmax attention."""

from __future__ import annotations

from nldsl.codegen.plan.asks import map_kind, rule
from nldsl.codegen.plan.engine import Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import settled_gradient
from nldsl.resolve.expanded import Core


def _attention(core: Core) -> Obstacles:
    return [*map_kind(core, "cache"), *rule(core, "softmax")]


def _words(core: Core) -> dict[str, Setting]:
    given = (("window", core.map.window), ("sinks", core.map.sinks))
    return {n: v for n, v in given if core.map.window and v} | settled_gradient(core)


ROWS = (
    Engine(
        "scaled dot-product attention",
        "attention",
        "attention",
        "c.2",
        "one masked softmax over the kept tokens",
        _attention,
        _words,
        (),
    ),
)
