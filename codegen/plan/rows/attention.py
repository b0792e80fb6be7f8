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
        lambda c: {"window": c.map.window} if c.map.window else {},
        (),
    ),
)
