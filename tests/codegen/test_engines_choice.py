"""Engines are chosen by algebra, and what an engine needs is found whole."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from nldsl.codegen.emit import classes, kernels
from nldsl.codegen.plan.engines import ENGINES, TOKEN_LOOP, choose, reference
from nldsl.codegen.plan.projections import fold, loop_obstacles, looped, obstacles
from nldsl.resolve.expanded import Core, Map, MemoryInstance, Num
from tests.codegen.building import FEATURES, ROOT, SPECS, feature, gallery

MATRIX, DEEP = Map("matrix"), Map("mlp", Num(8))
CACHE = Core(Map("cache"), rule="softmax")
HEBBIAN = Core(MATRIX, "dot")
DELTA = Core(MATRIX, "l2")
PERIOD: dict[str, Any] = {"anchor": 4}

# settings of a memory -> function, keywords
CHOSEN: dict[str, tuple[Core, str, dict[str, Any]]] = {
    "softmax attention": (CACHE, "attention", {}),
    "sliding window": (replace(CACHE, map=Map("cache", window=8)), "attention", {"window": 8}),
    "linear attention": (HEBBIAN, "hebbian", {}),
    "normalised": (
        replace(HEBBIAN, normalise=True, read="before"),
        "hebbian",
        {"normalise": True, "read": "before"},
    ),
    "with periods": (
        replace(HEBBIAN, update=4, read="boundary", anchor=4),
        "hebbian",
        {"period": 4, "read": "boundary"},
    ),
    "reads by the update, whatever the anchor": (
        replace(HEBBIAN, update=4, read="boundary", anchor=8),
        "hebbian",
        {"period": 4, "read": "boundary"},
    ),
    "reads by the update, gates by channel": (
        replace(HEBBIAN, update=4, read="boundary", anchor=8, retain="channel"),
        "channel_hebbian",
        {"period": 4, "read": "boundary"},
    ),
    "delta, forgetting first": (replace(DELTA, retain="head"), "delta", {}),
    "delta, read before": (replace(DELTA, read="before"), "delta", {"read": "before"}),
    "delta, forgetting last": (replace(DELTA, anchor="current"), "delta", {"erase": "current"}),
    "delta on a window": (
        replace(DELTA, window=3, weighted=True, anchor="current"),
        "window_delta",
        {"window": 3, "erase": "current"},
    ),
    "orthogonalised": (
        replace(DELTA, rule="muon", window=2, **PERIOD),
        "orthogonal",
        {"map": {"kind": "matrix"}, "objective": "l2", "anchor": 4, "window": 2},
    ),
    "delta descent": (replace(HEBBIAN, rule="dgd"), "delta", {"erase": "current"}),
    "delta descent, explicit": (replace(HEBBIAN, rule="dgd_explicit"), "delta", {"erase": "current"}),
    "delta descent, frozen": (
        replace(DELTA, rule="dgd", **PERIOD),
        "delta_frozen",
        {"period": 4, "read": "after"},
    ),
    "delta descent on the dot product, in periods": (
        replace(HEBBIAN, rule="dgd", update=4, read="boundary", **PERIOD),
        "delta_frozen",
        {"period": 4, "read": "boundary", "objective": "dot"},
    ),
    "linear attention, first order": (replace(HEBBIAN, gradient="first_order"), "hebbian", {}),
    "linear attention, stopped": (
        replace(HEBBIAN, gradient="stop"),
        "hebbian",
        {"gradient": "stop"},
    ),
    "delta, first order": (
        replace(DELTA, gradient="first_order"),
        "delta",
        {"gradient": "first_order"},
    ),
    "delta descent, first order": (
        replace(HEBBIAN, rule="dgd", gradient="first_order"),
        "delta",
        {"erase": "current"},
    ),
    "delta descent, stopped": (
        replace(HEBBIAN, rule="dgd", gradient="stop"),
        "delta",
        {"erase": "current", "gradient": "stop"},
    ),
    "delta, through few tokens": (
        replace(DELTA, gradient_tokens=8),
        "delta",
        {"gradient": ("through", 8)},
    ),
    "delta descent, frozen, first order": (
        replace(DELTA, rule="dgd", gradient="first_order", **PERIOD),
        "delta_frozen",
        {"period": 4, "read": "after", "gradient": "first_order"},
    ),
    "frozen matrix, stopped": (
        replace(DELTA, gradient="stop", **PERIOD),
        "frozen",
        {"map": "matrix", "period": 4, "objective": "l2", "read": "after", "gradient": "stop"},
    ),
    "Hebbian by channel": (
        replace(HEBBIAN, retain="channel", update=4, read="boundary", anchor=4),
        "channel_hebbian",
        {"period": 4, "read": "boundary"},
    ),
    "Hebbian by channel, first order": (
        replace(HEBBIAN, retain="channel", gradient="first_order"),
        "channel_hebbian",
        {},
    ),
    "delta by channel, first order": (
        replace(DELTA, rate="channel", gradient="first_order"),
        "channel_delta",
        {"gradient": "first_order"},
    ),
    "erasing apart, through few tokens": (
        replace(DELTA, erase=True, anchor="current", gradient_tokens=8),
        "channel_delta",
        {"anchor": "current", "gradient": ("through", 8)},
    ),
    "frozen by channel": (
        replace(DELTA, retain="channel", gradient="stop", **PERIOD),
        "channel_frozen",
        {"period": 4, "gradient": "stop"},
    ),
    "delta by channel": (replace(DELTA, rate="channel", read="before"), "channel_delta", {"read": "before"}),
    "delta, erasing apart": (
        replace(DELTA, erase=True, erase_into=True, retain="channel", anchor="current"),
        "channel_delta",
        {"anchor": "current"},
    ),
    "gated layers": (
        replace(DELTA, map=Map("swiglu", Num(8)), **PERIOD),
        "layered",
        {"map": {"kind": "swiglu", "hidden": 8}, "objective": "l2", "anchor": 4},
    ),
    "a norm in the map, cubes of errors": (
        replace(
            DELTA, map=Map("mlp", Num(8), 1, norm=True), objective="lp", objective_parameter=3.0, **PERIOD
        ),
        "layered",
        {
            "map": {
                "kind": "mlp",
                "hidden": 8,
                "depth": 1,
                "residual": False,
                "norm": True,
                "activation": "gelu",
            },
            "objective": "lp",
            "objective_parameter": 3.0,
            "anchor": 4,
        },
    ),
    "a constraint at each period": (
        replace(DELTA, constrain=(("softmax", None, 8),), update=4, read="boundary", **PERIOD),
        "layered",
        {
            "map": {"kind": "matrix"},
            "objective": "l2",
            "update": 4,
            "anchor": 4,
            "read": "boundary",
            "constrain": (("softmax", None, 8),),
        },
    ),
    "an accumulator of its own clock": (
        replace(DELTA, constrain=(("softmax", None, 8),)),
        "layered",
        {"map": {"kind": "matrix"}, "objective": "l2", "constrain": (("softmax", None, 8),)},
    ),
    "an anchor apart from the update": (
        replace(DELTA, map=DEEP, update=8, read="boundary", **PERIOD),
        "layered",
        {
            "map": {
                "kind": "mlp",
                "hidden": 8,
                "depth": 2,
                "residual": False,
                "norm": False,
                "activation": "gelu",
            },
            "objective": "l2",
            "update": 8,
            "anchor": 4,
            "read": "boundary",
        },
    ),
    "an objective that looks at weights": (
        replace(DELTA, objective="oja", constrain=(("norm", None, 4),), **PERIOD),
        "any_map",
        {"map": {"kind": "matrix"}, "objective": "oja", "anchor": 4, "constrain": (("norm", None, 4),)},
    ),
    "frozen matrix": (
        replace(DELTA, **PERIOD),
        "frozen",
        {"map": "matrix", "period": 4, "objective": "l2", "read": "after"},
    ),
    "deep memory": (
        replace(DELTA, map=DEEP, momentum="head", **PERIOD),
        "frozen",
        {
            "map": "mlp",
            "period": 4,
            "objective": "l2",
            "residual": False,
            "activation": "gelu",
            "read": "after",
        },
    ),
    "deep delta descent": (
        replace(HEBBIAN, map=DEEP, rule="dgd", update=4, read="boundary", anchor=4),
        "deep_dgd",
        {"period": 4, "objective": "dot", "residual": False, "activation": "gelu", "read": "boundary"},
    ),
    "deep, first layer": (
        replace(DELTA, map=DEEP, rule="dgd_first_layer", **PERIOD),
        "deep_dgd",
        {
            "period": 4,
            "objective": "l2",
            "residual": False,
            "activation": "gelu",
            "read": "after",
            "reading": "first_layer",
        },
    ),
}

# settings that only the token loop serves -> what it is told, and the obstacle of one engine
LOOPED: dict[str, tuple[Core, dict[str, Any], str, str]] = {
    "huber": (
        replace(DELTA, objective="huber", objective_parameter=1.0),
        {"objective": "huber", "objective_parameter": 1.0},
        "delta",
        "`objective = huber(1)`",
    ),
    "deep, each token": (replace(DELTA, map=DEEP), {"rule": "gd"}, "frozen", "gradients at every token"),
    "boundaries of running gradients": (
        replace(DELTA, map=DEEP, update=4, read="boundary"),
        {"update": 4},
        "frozen",
        "gradients at every token",
    ),
    "swiglu": (
        replace(DELTA, map=Map("swiglu", Num(8))),
        {"map": {"kind": "swiglu", "hidden": 8}},
        "frozen",
        "`map = swiglu`",
    ),
    "vector": (replace(DELTA, map=Map("vector")), {"map": {"kind": "vector"}}, "delta", "`map = vector`"),
    "muon": (replace(DELTA, rule="muon"), {"rule": "muon"}, "delta", "`rule = muon`"),
    "window of momentum": (
        replace(DELTA, window=3, momentum="head"),
        {"window": 3},
        "delta",
        "`window = 3 tokens`",
    ),
    "constraint": (
        replace(DELTA, constrain=(("norm", None, 1),)),
        {"constrain": (("norm", None, 1),)},
        "delta",
        "`constrain`",
    ),
    "erase": (replace(DELTA, erase=True, **PERIOD), {"anchor": 4}, "frozen", "`erase` apart from the key"),
    "channels": (
        replace(DELTA, retain="channel", momentum="head", **PERIOD),
        {"anchor": 4},
        "frozen",
        "a gate for each channel",
    ),
    "channels, frozen": (
        replace(DELTA, retain="channel", momentum="head", **PERIOD),
        {"anchor": 4},
        "channel_frozen",
        "`momentum`",
    ),
    "huber, first order": (
        replace(DELTA, objective="huber", objective_parameter=1.0, gradient="first_order"),
        {"gradient": "first_order"},
        "delta",
        "`objective = huber(1)`",
    ),
    "huber, through few tokens": (
        replace(DELTA, objective="huber", objective_parameter=1.0, gradient_tokens=8),
        {"gradient": ("through", 8)},
        "delta",
        "`objective = huber(1)`",
    ),
    "delta, normalised": (replace(DELTA, normalise=True), {"normalise": True}, "delta", "`normalise`"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_engine_of(name: str) -> None:
    core, function, keywords = CHOSEN[name]
    choice = choose(core)
    assert (choice.engine.function, choice.keywords) == (function, keywords)
    assert choice.engine.obstacles(core) == []
    assert all(obstacles for _, obstacles in choice.missed)
    assert reference(core).engine is TOKEN_LOOP


@pytest.mark.parametrize("name", LOOPED)
def test_the_token_loop_for(name: str) -> None:
    core, keywords, engine, obstacle = LOOPED[name]
    choice = choose(core)
    assert choice.engine is TOKEN_LOOP
    assert keywords.items() <= choice.keywords.items()
    reasons = {one.function: words for one, words in reversed(choice.missed)}
    assert any(obstacle in words for one, words in choice.missed if one.function == engine), reasons
    assert [one for one, _ in choice.missed] == list(ENGINES)


def test_gates_are_passed_where_the_memory_has_them() -> None:
    assert choose(HEBBIAN).inputs == ()
    assert choose(replace(DELTA, rate="head", retain="head")).inputs == ("rate", "retain")
    assert choose(replace(DELTA, erase=True, rate="channel", momentum="head")).inputs == (
        "rate",
        "momentum",
        "erase",
    )


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("rule", ["gd", "dgd", "dgd_first_layer"])
def test_the_fold_of_a_self_modifying_memory(rule: str, moving: bool) -> None:
    core = replace(
        HEBBIAN,
        map=DEEP,
        rule=rule,
        update=4,
        anchor=4,
        read="boundary",
        momentum="head" if moving else "none",
    )
    one = fold(core)
    assert one.function == ("frozen_fold" if rule == "gd" else "deep_dgd_fold")
    assert one.moments == moving
    assert ("reading" in one.keywords) == (rule == "dgd_first_layer")
    assert fold(core, "reference").function == "token_fold"


def _memories() -> list[MemoryInstance]:
    specs = [*(feature(name) for name in FEATURES), *(gallery(name) for name in SPECS)]
    return [one for spec in specs for one, _ in spec.expanded.instances() if isinstance(one, MemoryInstance)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"partial": "carry"}, ["`carry` of a partial period"]),
        ({"map": DEEP, "retain": "channel"}, ["a `retain` for each channel beside `map = mlp`"]),
        ({"map": Map("mlp", Num(8), 1), "retain": "channel"}, []),
        ({"rule": "gd_implicit", "rate": "channel"}, ["a `rate` for each channel in an implicit step"]),
        ({"objective": "dot", "erase": True}, ["`erase` beside `map = matrix` and `objective = dot`"]),
        ({"erase": True, "retain": "channel"}, []),
    ],
)
def test_what_even_the_token_loop_cannot_do(change: dict[str, Any], words: list[str]) -> None:
    assert loop_obstacles(replace(DELTA, **change)) == words


def test_what_a_self_modifying_memory_cannot_be() -> None:
    one = next(m for m in _memories() if m.adaptives())
    assert looped(one) and obstacles(one) == []
    for change, words in {
        "window": ({"window": 3}, "`window = 3 tokens`"),
        "muon": ({"rule": "muon"}, "`rule = muon`"),
        "anchor": ({"update": 1, "anchor": 4}, "an anchor apart"),
        "cache": ({"map": Map("cache")}, "`map = cache`"),
        "norm": ({"map": Map("mlp", Num(5), 2, norm=True)}, "a norm in a map"),
        "cut": ({"gradient_tokens": 3}, "`gradient = through 3 tokens`, which cuts a period of 2 tokens"),
    }.values():
        assert any(words in text for text in obstacles(replace(one, core=replace(one.core, **change)))), (
            change
        )


# --------------------------------------------------------------------------- names


def _systems() -> set[str]:
    library = {path.stem for path in (ROOT / "nldsl" / "lib").glob("*.nl")}
    return library | {
        "Hope",
        "Transformer",
        "Mamba",
        "RWKV",
        "KDA",
        "TTT",
        "Miras",
        "Atlas",
        "Moneta",
        "Memora",
        "Yaad",
    }


@pytest.mark.parametrize("path", sorted((ROOT / "codegen").glob("[pe][lm]*/*.py")), ids=lambda p: p.name)
def test_no_system_is_known_by_its_name(path: Any) -> None:
    source = path.read_text(encoding="utf-8")
    docstrings = {
        node.body[0].lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    }
    words = {
        word
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in (tokenize.NAME, tokenize.STRING) and token.start[0] not in docstrings
        for word in re.findall(r"[A-Za-z]+", token.string)
    }
    assert words & _systems() == set()


def test_names_that_torch_keeps_are_kept() -> None:
    own = {name for name in vars(nn.Module) if not name.startswith("_")} | {"training"}
    assert own - classes.MODULE_NAMES == set()


# --------------------------------------------------------------------------- kernels


def _engine_files() -> list[str]:
    return sorted(
        path.stem for path in (ROOT / "codegen" / "engines").glob("*.py") if path.stem != "__init__"
    )


def test_no_two_engines_define_one_name() -> None:
    owners: dict[str, list[str]] = {}
    for file in _engine_files():
        for name in kernels.read(file).definitions:
            owners.setdefault(name, []).append(file)
    assert {name: files for name, files in owners.items() if len(files) > 1} == {}


@pytest.mark.parametrize("file", _engine_files())
def test_kernels_are_found_whole(file: str) -> None:
    for wanted in kernels.read(file).definitions:
        if wanted.startswith("_"):
            continue
        found = kernels.collect({wanted: file})
        text = "\n".join(
            [*found.imports, *(d.text for _, _, definitions in found.sections for d in definitions)]
        )
        scope: dict[str, Any] = {}
        exec(compile(f"from __future__ import annotations\n{text}", f"{file}.{wanted}", "exec"), scope)
        assert wanted in scope
        missing = {
            name
            for value in scope.values()
            if callable(value) and hasattr(value, "__code__")
            for name in value.__code__.co_names
            if name in classes.kernel_names() and name not in scope
        }
        assert missing == set()


def test_every_engine_in_the_table_exists() -> None:
    for engine in (*ENGINES, TOKEN_LOOP):
        assert engine.function in kernels.read(engine.file).definitions
