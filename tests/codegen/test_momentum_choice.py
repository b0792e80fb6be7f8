"""Which memories the engines for momentum, Oja's rule and implicit steps serve, and what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nldsl.codegen.plan.engines import TOKEN_LOOP, choose
from nldsl.resolve.expanded import Core, Map, Num

HEBBIAN, DELTA = Core(Map("matrix"), "dot"), Core(Map("matrix"), "l2")
MOVING = replace(DELTA, momentum="head")
DEEP = Core(Map("mlp", Num(8)), "l2", rule="dgd", anchor=4)
WORDS = {"period": 4, "objective": "l2", "residual": False, "activation": "gelu", "read": "after"}

CHOSEN: dict[str, tuple[Core, str, dict[str, Any]]] = {
    "momentum": (MOVING, "heavy_ball", {}),
    "momentum, read before": (replace(MOVING, read="before"), "heavy_ball", {"read": "before"}),
    "momentum, current": (replace(MOVING, anchor="current"), "heavy_ball", {"anchor": "current"}),
    "momentum, a period of one token": (replace(MOVING, anchor=1), "heavy_ball", {"anchor": "current"}),
    "momentum, reads in periods": (
        replace(MOVING, update=4, anchor="current"),
        "heavy_ball",
        {"anchor": "current", "period": 4, "read": "boundary"},
    ),
    "momentum, frozen": (
        replace(MOVING, anchor=4),
        "frozen",
        {"map": "matrix", "period": 4, "objective": "l2", "read": "after"},
    ),
    "momentum, stopped": (replace(MOVING, gradient="stop"), "heavy_ball", {"gradient": "stop"}),
    "Hebbian with momentum": (replace(HEBBIAN, momentum="head"), "heavy_ball", {"objective": "dot"}),
    "Hebbian with momentum, first order": (
        replace(HEBBIAN, momentum="head", gradient="first_order"),
        "heavy_ball",
        {"objective": "dot"},
    ),
    "delta descent with momentum": (replace(MOVING, rule="dgd"), "heavy_ball", {"erase": True}),
    "delta descent with momentum, frozen": (
        replace(MOVING, rule="dgd_explicit", anchor=4, update=4, read="boundary"),
        "heavy_ball",
        {"erase": True, "anchor": "frozen", "period": 4, "read": "boundary"},
    ),
    "delta descent, running": (replace(DELTA, rule="dgd"), "heavy_ball", {"erase": True}),
    "oja": (replace(DELTA, objective="oja"), "heavy_ball", {"objective": "oja"}),
    "oja with momentum, frozen": (
        replace(MOVING, objective="oja", anchor=4, gradient_tokens=8),
        "heavy_ball",
        {"objective": "oja", "anchor": "frozen", "period": 4, "gradient": ("through", 8)},
    ),
    "implicit": (replace(DELTA, rule="gd_implicit"), "delta", {}),
    "implicit, current": (
        replace(DELTA, rule="gd_implicit", anchor="current"),
        "delta",
        {"erase": "current"},
    ),
    "implicit with momentum": (replace(MOVING, rule="gd_implicit"), "heavy_ball", {}),
    "deep delta descent with momentum": (replace(DEEP, momentum="head"), "deep_dgd", WORDS),
    "deep delta descent, explicit": (
        replace(DEEP, rule="dgd_explicit"),
        "deep_dgd",
        WORDS | {"reading": "explicit"},
    ),
    "deep delta descent, three layers, first order": (
        replace(DEEP, map=Map("mlp", Num(8), 3), gradient="first_order"),
        "deep_dgd",
        WORDS | {"gradient": "first_order"},
    ),
}

LOOPED: dict[str, tuple[Core, str]] = {
    "an anchor of its own": (
        replace(MOVING, update=8, anchor=4, read="boundary"),
        "an anchor apart from the update",
    ),
    "oja with erasure": (
        replace(MOVING, rule="dgd", objective="oja"),
        "`rule = dgd` with `objective = oja`",
    ),
    "normalised": (replace(MOVING, normalise=True), "`normalise`"),
    "implicit, normalised": (
        replace(HEBBIAN, rule="gd_implicit", normalise=True),
        "`rule = gd(implicit)`",
    ),
    "window": (replace(MOVING, window=3), "`window = 3 tokens`"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_engine_of(name: str) -> None:
    core, function, keywords = CHOSEN[name]
    choice = choose(core)
    assert (choice.engine.function, choice.keywords) == (function, keywords)
    assert ("momentum" in choice.inputs) == (core.momentum != "none")


@pytest.mark.parametrize("name", LOOPED)
def test_what_is_left_to_other_engines(name: str) -> None:
    core, obstacle = LOOPED[name]
    missed = [words for engine, words in choose(core).missed if engine.function == "heavy_ball"]
    assert choose(core).engine is TOKEN_LOOP or choose(core).engine.function != "heavy_ball"
    assert obstacle in missed[-1]
