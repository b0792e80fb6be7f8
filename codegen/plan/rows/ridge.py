"""Memories that read the exact solution of a regression over their past."""

from __future__ import annotations

from nldsl.codegen.plan.asks import gradient_apart, map_kind, no_momentum, not_normalised, objective, rule
from nldsl.codegen.plan.engine import Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import settled_gradient
from nldsl.resolve.expanded import Core


def _ridge(core: Core) -> Obstacles:
    return [
        *rule(core, "ridge"),
        *map_kind(core, "matrix"),
        *objective(core, "l2"),
        *no_momentum(core),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _words(core: Core) -> dict[str, Setting]:
    words: dict[str, Setting] = {"strength": core.rule_parameter or 1.0}
    if core.update > 1:
        words |= {"period": core.update, "read": "boundary"}
    elif core.read != "after":
        words["read"] = core.read
    return words | settled_gradient(core)


ROWS = (
    Engine(
        "ridge solve",
        "ridge",
        "ridge",
        "c.4",
        "two sums by tiles, and one symmetric system factored for each token",
        _ridge,
        _words,
        ("rate", "retain"),
    ),
)
