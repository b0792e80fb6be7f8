"""Matrix memories that write for a window of pairs with running gradients."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    drops_partial_periods,
    erases_the_key,
    every_token,
    gates_per_head,
    map_kind,
    no_constraint,
    no_momentum,
    not_normalised,
    objective,
    reads,
    rule,
    want,
)
from nldsl.codegen.plan.engine import Engine, Obstacles, Setting
from nldsl.codegen.plan.gradients import gradient_setting
from nldsl.resolve.expanded import Core


def _window_delta(core: Core) -> Obstacles:
    return [
        *want(core.window is not None, "no `window`"),
        *map_kind(core, "matrix"),
        *objective(core, "l2"),
        *rule(core, "gd"),
        *no_momentum(core),
        *every_token(core),
        *reads(core, "after", "before"),
        *not_normalised(core),
        *no_constraint(core),
        *erases_the_key(core),
        *drops_partial_periods(core),
        *gates_per_head(core),
    ]


def _words(core: Core) -> dict[str, Setting]:
    words: dict[str, Setting] = {"window": core.window or 1}
    if core.anchor == "current":
        words["erase"] = "current"
    return words | ({} if core.read == "after" else {"read": core.read}) | gradient_setting(core)


ROWS = (
    Engine(
        "delta tiles on windows",
        "window_delta",
        "windows",
        "E7",
        "one unit lower-triangular solve a tile, with a row for each pair of each token's window, "
        "or sums over the window where it is long",
        _window_delta,
        _words,
        ("rate", "retain", "weight"),
    ),
)
