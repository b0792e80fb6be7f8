"""Maps of several layers, and gradients that stand still for a period."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    gradient_apart,
    map_kind,
    not_normalised,
    objective,
    rule,
    stands_still,
    two_layers,
    want,
)
from nldsl.codegen.plan.engine import GATES, Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import gradient_setting
from nldsl.resolve.expanded import Core

READINGS: dict[str, dict[str, Setting]] = {
    "dgd": {},
    "dgd_first_layer": {"reading": "first_layer"},
    "dgd_explicit": {"reading": "explicit"},
}


def _deep_dgd(core: Core) -> Obstacles:
    return [
        *map_kind(core, "mlp"),
        *objective(core, "l2", "dot"),
        *rule(core, *READINGS),
        *want(not core.map.norm, "a norm inside the map"),
        *stands_still(core),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _frozen(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix", "mlp"),
        *objective(core, "l2", "dot"),
        *rule(core, "gd"),
        *two_layers(core),
        *stands_still(core),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _each_token(core: Core) -> Obstacles:
    return [
        *map_kind(core, "mlp"),
        *objective(core, "l2", "dot"),
        *rule(core, "gd"),
        *two_layers(core),
        *want(core.anchor == "current", f"`anchor = {core.anchor}`"),
        *want(core.update == 1, f"`update = every {core.update} tokens`"),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _deep(core: Core) -> dict[str, Setting]:
    words: dict[str, Setting] = {"period": core.period, "objective": core.objective}
    if core.map.kind == "mlp":
        words |= {"residual": core.map.residual, "activation": core.map.activation}
    return words | {"read": core.read}


ROWS = (
    Engine(
        "deep delta solve",
        "deep_dgd",
        "deep_dgd",
        "E12",
        "one triangular solve for each layer, gradients frozen in a period",
        _deep_dgd,
        lambda c: _deep(c) | READINGS[c.rule] | gradient_setting(c),
        GATES,
    ),
    Engine(
        "factored frozen gradient",
        "frozen",
        "frozen",
        "E6",
        "one coefficient matrix a period; no weights of single tokens",
        _frozen,
        lambda c: {"map": c.map.kind} | _deep(c) | gradient_setting(c),
        GATES,
    ),
    Engine(
        "one token a tile",
        "frozen",
        "frozen",
        "E6",
        "gradients at every token's own weights: sequential, forward and backward in closed form",
        _each_token,
        lambda c: {"map": c.map.kind} | _deep(c) | gradient_setting(c),
        GATES,
    ),
)
