"""Delta rules on a matrix: one triangular solve a tile."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    every_token,
    map_kind,
    no_momentum,
    not_normalised,
    nothing_special,
    objective,
    reads,
    rule,
    stands_still,
    want,
)
from nldsl.codegen.plan.engine import Engine, Obstacles
from nldsl.resolve.expanded import Core


def _delta_retained(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix"),
        *objective(core, "l2"),
        *rule(core, "gd"),
        *no_momentum(core),
        *every_token(core),
        *reads(core, "after", "before"),
        *want(core.anchor == "retained", f"`anchor = {core.anchor}`"),
        *not_normalised(core),
        *nothing_special(core),
    ]


def _delta_current(core: Core) -> Obstacles:
    dgd_dot = core.rule in ("dgd", "dgd_explicit", "dgd_first_layer") and core.objective == "dot"
    gd_l2 = core.rule == "gd" and core.objective == "l2" and core.anchor == "current"
    return [
        *map_kind(core, "matrix"),
        *want(
            dgd_dot or gd_l2,
            f"`rule = {core.rule}` with `objective = {core.objective}` and `anchor = {core.anchor}`",
        ),
        *no_momentum(core),
        *every_token(core),
        *reads(core, "after", "before"),
        *not_normalised(core),
        *nothing_special(core),
    ]


def _delta_frozen(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix"),
        *objective(core, "l2"),
        *rule(core, "dgd", "dgd_explicit", "dgd_first_layer"),
        *no_momentum(core),
        *stands_still(core),
        *not_normalised(core),
        *nothing_special(core),
    ]


ROWS = (
    Engine(
        "delta tiles",
        "delta",
        "delta",
        "E3",
        "one unit lower-triangular solve a tile, erasing after forgetting",
        _delta_retained,
        lambda c: {} if c.read == "after" else {"read": c.read},
        ("rate", "retain"),
    ),
    Engine(
        "delta tiles",
        "delta",
        "delta",
        "E10",
        "one unit lower-triangular solve a tile, erasing before forgetting",
        _delta_current,
        lambda c: {"erase": "current"} if c.read == "after" else {"erase": "current", "read": c.read},
        ("rate", "retain"),
    ),
    Engine(
        "delta tiles, frozen gradient",
        "delta_frozen",
        "delta",
        "E10",
        "the same solve with errors taken at the period's start",
        _delta_frozen,
        lambda c: {"period": c.period, "read": c.read},
        ("rate", "retain"),
    ),
)
