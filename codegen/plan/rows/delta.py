"""Delta rules on a matrix: one triangular solve a tile."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    DESCENT,
    every_token,
    gradient_apart,
    map_kind,
    no_momentum,
    not_normalised,
    objective,
    reads,
    rule,
    stands_still,
    want,
)
from nldsl.codegen.plan.engine import Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import gradient_setting, settled_gradient
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
        *gradient_apart(core),
    ]


def _delta_current(core: Core) -> Obstacles:
    dgd_dot = core.rule in DESCENT and core.objective == "dot"
    gd_l2 = core.rule in ("gd", "gd_implicit") and core.objective == "l2" and core.anchor == "current"
    return [
        *map_kind(core, "matrix"),
        *want(
            dgd_dot or gd_l2,
            f"`rule = {core.rule}` with `objective = {core.lowers}` and `anchor = {core.anchor}`",
        ),
        *no_momentum(core),
        *every_token(core),
        *reads(core, "after", "before"),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _delta_frozen(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix"),
        *objective(core, "l2", "dot"),
        *rule(core, *DESCENT),
        *no_momentum(core),
        *stands_still(core),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _read_setting(core: Core) -> dict[str, Setting]:
    return {} if core.read == "after" else {"read": core.read}


def _gradient_of(core: Core) -> dict[str, Setting]:
    return settled_gradient(core) if core.objective == "dot" else gradient_setting(core)


def _frozen_words(core: Core) -> dict[str, Setting]:
    dot: dict[str, Setting] = {"objective": "dot"} if core.objective == "dot" else {}
    return {"period": core.period, "read": core.read} | dot | _gradient_of(core)


ROWS = (
    Engine(
        "delta tiles",
        "delta",
        "delta",
        "E3",
        "one unit lower-triangular solve a tile, erasing after forgetting",
        _delta_retained,
        lambda c: _read_setting(c) | gradient_setting(c),
        ("rate", "retain"),
    ),
    Engine(
        "delta tiles",
        "delta",
        "delta",
        "E10",
        "one unit lower-triangular solve a tile, erasing before forgetting",
        _delta_current,
        lambda c: {"erase": "current"} | _read_setting(c) | _gradient_of(c),
        ("rate", "retain"),
    ),
    Engine(
        "delta tiles, frozen gradient",
        "delta_frozen",
        "delta",
        "E10",
        "the same solve with errors taken at the period's start",
        _delta_frozen,
        _frozen_words,
        ("rate", "retain"),
    ),
)
