"""Matrices whose writes go on moving, or whose gradients run beside other clocks."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    DESCENT,
    frozen,
    gradient_apart,
    map_kind,
    not_normalised,
    objective,
    rule,
    want,
)
from nldsl.codegen.plan.engine import GATES, Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import gradient_setting, settled_gradient
from nldsl.resolve.expanded import Core


def _matrix(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix"),
        *want(
            core.anchor in ("retained", "current", 1) or core.update in (1, core.anchor),
            "an anchor apart from the update",
        ),
        *not_normalised(core),
        *gradient_apart(core),
    ]


def _known(core: Core) -> Obstacles:
    return [*objective(core, "dot"), *rule(core, "gd"), *_matrix(core)]


def _solved(core: Core) -> Obstacles:
    return [
        *objective(core, "l2", "dot", "oja"),
        *rule(core, "gd", *DESCENT),
        *want(
            not (core.objective == "oja" and core.rule in DESCENT),
            f"`rule = {core.rule}` with `objective = {core.lowers}`",
        ),
        *_matrix(core),
    ]


def _words(core: Core) -> dict[str, Setting]:
    words: dict[str, Setting] = {} if core.objective == "l2" else {"objective": core.objective}
    if core.rule in DESCENT:
        words["erase"] = True
    if core.objective != "dot" and core.anchor != "retained":
        words["anchor"] = "frozen" if frozen(core) else "current"
    if core.period > 1:
        words["period"] = core.period
    read = "boundary" if core.update > 1 else core.read
    if read != "after":
        words["read"] = read
    return words | (settled_gradient(core) if core.objective == "dot" else gradient_setting(core))


ROWS = (
    Engine(
        "Hebbian tiles with momentum",
        "heavy_ball",
        "momentum",
        "E6",
        "masked scores in a tile, the matrix and its momentum carried between tiles",
        _known,
        _words,
        GATES,
    ),
    Engine(
        "delta tiles with momentum",
        "heavy_ball",
        "momentum",
        "E9, E11",
        "one unit lower-triangular solve a tile, for the matrix and its momentum together",
        _solved,
        _words,
        GATES,
    ),
)
