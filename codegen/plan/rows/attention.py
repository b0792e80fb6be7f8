"""Softmax attention."""

from __future__ import annotations

from nldsl.codegen.plan.asks import map_kind, rule
from nldsl.codegen.plan.engine import Engine, Obstacles
from nldsl.resolve.expanded import Core


def _attention(core: Core) -> Obstacles:
    return [*map_kind(core, "cache"), *rule(core, "softmax")]


ROWS = (
    Engine(
        "scaled dot-product attention",
        "attention",
        "attention",
        "c.2",
        "one masked softmax over the kept tokens",
        _attention,
        lambda c: {n: v for n, v in (("window", c.map.window), ("sinks", c.map.sinks)) if c.map.window and v},
        (),
    ),
)
