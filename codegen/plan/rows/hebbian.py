"""Memories that only add: a matrix under the dot product."""

from __future__ import annotations

from nldsl.codegen.plan.asks import gradient_apart, map_kind, no_momentum, objective, reads, rule
from nldsl.codegen.plan.engine import Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import settled_gradient
from nldsl.resolve.expanded import Core


def _hebbian(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix"),
        *objective(core, "dot"),
        *rule(core, "gd"),
        *no_momentum(core),
        *reads(core, "after", "before", "boundary"),
        *gradient_apart(core),
    ]


def _hebbian_words(core: Core) -> dict[str, Setting]:
    words: dict[str, Setting] = {} if core.read == "after" else {"read": core.read}
    if core.boundary > 1:  # gradients of `dot` do not look at the weights, so no anchor matters
        words["period"] = core.boundary
    words |= {"normalise": True} if core.normalise else {}
    return words | settled_gradient(core)


ROWS = (
    Engine(
        "Hebbian tiles",
        "hebbian",
        "hebbian",
        "E1",
        "masked scores in a tile, one matrix carried between tiles",
        _hebbian,
        _hebbian_words,
        ("rate", "retain"),
    ),
)
