"""Any map, any objective, and constraints, as long as gradients stand still for a while."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    drops_partial_periods,
    erases_the_key,
    frozen,
    gates_per_head,
    map_kind,
    no_constraint,
    not_normalised,
    objective,
    one_answer,
    rule,
    want,
)
from nldsl.codegen.plan.engine import GATES, Engine, Obstacles, Setting
from nldsl.codegen.plan.keywords import reference_keywords
from nldsl.resolve.expanded import Core


def _standing(core: Core) -> Obstacles:
    linked = any(name != "norm" for name, _, _ in core.constrain)
    return [
        *want(core.map.kind != "cache", "`map = cache`"),
        *rule(core, "gd"),
        *want(frozen(core) or linked, "gradients at every token"),
        *want(all(every > 1 for _, _, every in core.constrain), "a constraint after every token"),
        *not_normalised(core),
        *erases_the_key(core),
        *drops_partial_periods(core),
        *gates_per_head(core),
    ]


def _layered(core: Core) -> Obstacles:
    return [*_standing(core), *_of_answers(core)]


def _of_answers(core: Core) -> Obstacles:
    """The objective looks at the weights through one answer alone."""
    return [*objective(core, "l2", "dot", "lp", "huber", "expression"), *one_answer(core)]


def _orthogonal(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix", "mlp", "swiglu"),
        *_of_answers(core),
        *rule(core, "muon"),
        *want(frozen(core), "gradients at every token"),
        *not_normalised(core),
        *no_constraint(core),
        *erases_the_key(core),
        *drops_partial_periods(core),
        *gates_per_head(core),
    ]


def _words(core: Core) -> dict[str, Setting]:
    return {name: value for name, value in reference_keywords(core).items() if name != "rule"}


ROWS = (
    Engine(
        "layered frozen gradient",
        "layered",
        "layered",
        "E5, E6",
        "inputs and errors of every layer by one pass through the map; no weights of single tokens",
        _layered,
        _words,
        (*GATES, "weight", "objective_parameter"),
    ),
    Engine(
        "orthogonalised steps",
        "orthogonal",
        "orthogonal",
        "E8",
        "the momentum of a tile's tokens, made orthogonal in one batch",
        _orthogonal,
        _words,
        (*GATES, "weight", "objective_parameter"),
    ),
    Engine(
        "any map",
        "any_map",
        "any_map",
        "E5",
        "rows of coefficients pulled back through the objective, whatever map and objective are",
        _standing,
        _words,
        (*GATES, "weight", "objective_parameter"),
    ),
)
