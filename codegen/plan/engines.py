"""Which engine fits a memory, decided by its algebra and never by its name.

Each row states what an engine asks of a `Core`.  The first that fits is taken; where none does, the
token loop runs, and the obstacles say why (`nldsl explain`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from nldsl.records import record
from nldsl.resolve.expanded import Core

Obstacles = list[str]


@record
class Engine:
    """`function` lives in `nldsl.codegen.engines.<file>`; `reference` names its row of REF c.1."""

    name: str
    function: str
    file: str
    reference: str
    summary: str
    obstacles: Callable[[Core], Obstacles]
    keywords: Callable[[Core], dict[str, str | int | bool | float]]
    inputs: tuple[str, ...]


@record
class Choice:
    """The engine of one memory: how to call it, and what kept the engines before it away."""

    engine: Engine
    keywords: dict[str, str | int | bool | float]
    inputs: tuple[str, ...]
    missed: tuple[tuple[Engine, tuple[str, ...]], ...] = field(default=())


def _want(ok: bool, obstacle: str) -> Obstacles:
    return [] if ok else [obstacle]


def _plain(core: Core) -> Obstacles:
    """What no engine yet can do."""
    return [
        *_want(core.window is None, f"`window = {core.window} tokens`"),
        *_want(not core.constrain, "`constrain`"),
        *_want(not core.erase, "`erase` apart from the key"),
        *_want(core.partial == "drop", f"`{core.partial}` of a partial period"),
        *_want(core.gradient == "through" and core.gradient_tokens is None, f"`gradient = {_flow(core)}`"),
        *_want("channel" not in (core.rate, core.retain, core.momentum), "a gate for each channel"),
    ]


def _flow(core: Core) -> str:
    return core.gradient if core.gradient_tokens is None else f"{core.gradient} {core.gradient_tokens} tokens"


def _rule(core: Core, *names: str) -> Obstacles:
    return _want(core.rule in names, f"`rule = {core.rule}`")


def _map(core: Core, *kinds: str) -> Obstacles:
    return _want(core.map.kind in kinds, f"`map = {core.map.kind}`")


def _objective(core: Core, *names: str) -> Obstacles:
    return _want(core.objective in names, f"`objective = {core.objective}`")


def _no_momentum(core: Core) -> Obstacles:
    return _want(core.momentum == "none", "`momentum`")


def _tokens(core: Core) -> Obstacles:
    return _want(core.period == 1, f"a period of {core.period} tokens")


def _reads(core: Core, *names: str) -> Obstacles:
    return _want(core.read in names, f"`read = {core.read}`")


def _two_layers(core: Core) -> Obstacles:
    return [
        *_want(core.map.kind != "mlp" or core.map.depth == 2, f"an `mlp` of depth {core.map.depth}"),
        *_want(not core.map.norm, "a norm inside the map"),
    ]


def _not_normalised(core: Core) -> Obstacles:
    return _want(not core.normalise, "`normalise`")


def _attention(core: Core) -> Obstacles:
    return [*_map(core, "cache"), *_rule(core, "softmax")]


def _hebbian(core: Core) -> Obstacles:
    return [
        *_map(core, "matrix"),
        *_objective(core, "dot"),
        *_rule(core, "gd"),
        *_no_momentum(core),
        *_reads(core, "after", "before", "boundary"),
        *_plain(core),
    ]


def _delta_retained(core: Core) -> Obstacles:
    return [
        *_map(core, "matrix"),
        *_objective(core, "l2"),
        *_rule(core, "gd"),
        *_no_momentum(core),
        *_tokens(core),
        *_reads(core, "after", "before"),
        *_want(core.anchor == "retained", f"`anchor = {core.anchor}`"),
        *_not_normalised(core),
        *_plain(core),
    ]


def _delta_current(core: Core) -> Obstacles:
    dgd_dot = core.rule in ("dgd", "dgd_explicit", "dgd_first_layer") and core.objective == "dot"
    gd_l2 = core.rule == "gd" and core.objective == "l2" and core.anchor == "current"
    return [
        *_map(core, "matrix"),
        *_want(
            dgd_dot or gd_l2,
            f"`rule = {core.rule}` with `objective = {core.objective}` and `anchor = {core.anchor}`",
        ),
        *_no_momentum(core),
        *_tokens(core),
        *_reads(core, "after", "before"),
        *_not_normalised(core),
        *_plain(core),
    ]


def _delta_frozen(core: Core) -> Obstacles:
    return [
        *_map(core, "matrix"),
        *_objective(core, "l2"),
        *_rule(core, "dgd", "dgd_explicit", "dgd_first_layer"),
        *_no_momentum(core),
        *_want(core.period > 1, "gradients at every token"),
        *_not_normalised(core),
        *_plain(core),
    ]


def _frozen(core: Core) -> Obstacles:
    return [
        *_map(core, "matrix", "mlp"),
        *_objective(core, "l2", "dot"),
        *_rule(core, "gd"),
        *_two_layers(core),
        *_want(core.period > 1, "gradients at every token"),
        *_not_normalised(core),
        *_plain(core),
    ]


def _deep_dgd(core: Core) -> Obstacles:
    return [
        *_map(core, "mlp"),
        *_objective(core, "l2", "dot"),
        *_rule(core, "dgd", "dgd_first_layer"),
        *_two_layers(core),
        *_no_momentum(core),
        *_want(core.period > 1, "gradients at every token"),
        *_not_normalised(core),
        *_plain(core),
    ]


def _deep(core: Core) -> dict[str, str | int | bool | float]:
    words: dict[str, str | int | bool | float] = {"period": core.period, "objective": core.objective}
    if core.map.kind == "mlp":
        words |= {"residual": core.map.residual, "activation": core.map.activation}
    return words | {"read": core.read}


def _hebbian_words(core: Core) -> dict[str, str | int | bool | float]:
    words: dict[str, str | int | bool | float] = {} if core.read == "after" else {"read": core.read}
    if core.period > 1:
        words["period"] = core.period
    return words | {"normalise": True} if core.normalise else words


GATES = ("rate", "retain", "momentum")
ENGINES: tuple[Engine, ...] = (
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
    Engine(
        "deep delta solve",
        "deep_dgd",
        "deep_dgd",
        "E12",
        "one triangular solve for each layer, gradients frozen in a period",
        _deep_dgd,
        lambda c: _deep(c) | ({"reading": "first_layer"} if c.rule == "dgd_first_layer" else {}),
        ("rate", "retain"),
    ),
    Engine(
        "factored frozen gradient",
        "frozen",
        "frozen",
        "E6",
        "one coefficient matrix a period; no weights of single tokens",
        _frozen,
        lambda c: {"map": c.map.kind} | _deep(c),
        GATES,
    ),
)

TOKEN_LOOP = Engine(
    "token loop",
    "token_loop",
    "reference",
    "f",
    "the definition itself, token by token: exact, and slow",
    lambda c: [],
    lambda core: reference_keywords(core),  # noqa: PLW0108 -- defined below
    (*GATES, "erase"),
)


def choose(core: Core) -> Choice:
    """The first engine that fits."""
    missed: list[tuple[Engine, tuple[str, ...]]] = []
    for engine in ENGINES:
        obstacles = engine.obstacles(core)
        if not obstacles:
            return Choice(engine, engine.keywords(core), _given(engine, core), tuple(missed))
        missed.append((engine, tuple(obstacles)))
    return reference(core, tuple(missed))


def reference(core: Core, missed: tuple[tuple[Engine, tuple[str, ...]], ...] = ()) -> Choice:
    """The token loop for this memory."""
    return Choice(TOKEN_LOOP, reference_keywords(core), _given(TOKEN_LOOP, core), missed)


def _given(engine: Engine, core: Core) -> tuple[str, ...]:
    """Which of the engine's gates the memory has."""
    gates = {name: getattr(core, name) != "none" for name in GATES} | {"erase": core.erase}
    return tuple(name for name in engine.inputs if gates[name])


def reference_keywords(core: Core) -> dict[str, str | int | bool | float]:
    """All settings of the token loop that differ from its defaults."""
    words: dict[str, object] = {"map": map_settings(core), "objective": core.objective, "rule": core.rule}
    if core.objective_parameter is not None:
        words["objective_parameter"] = core.objective_parameter
    defaults: dict[str, object] = {
        "update": 1,
        "anchor": "retained",
        "read": "after",
        "window": None,
        "normalise": False,
        "constrain": (),
        "partial": "drop",
    }
    words |= {
        name: getattr(core, name) for name, default in defaults.items() if getattr(core, name) != default
    }
    if core.gradient != "through":
        words["gradient"] = core.gradient
    elif core.gradient_tokens is not None:
        words["gradient"] = ("through", core.gradient_tokens)
    return words  # type: ignore[return-value]


def map_settings(core: Core) -> dict[str, str | int | bool | None]:
    """The map as plain settings."""
    one = core.map
    match one.kind:
        case "mlp":
            return {
                "kind": "mlp",
                "hidden": int(one.hidden or 0),
                "depth": one.depth,
                "residual": one.residual,
                "norm": one.norm,
                "activation": one.activation,
            }
        case "swiglu":
            return {"kind": "swiglu", "hidden": int(one.hidden or 0)}
        case "cache":
            return {"kind": "cache", "window": one.window}
        case _:
            return {"kind": one.kind}
