"""What engines ask of a memory, each as the list of obstacles in its way; empty where none is."""

from __future__ import annotations

from nldsl.codegen.plan.engine import Obstacles
from nldsl.resolve import spelling
from nldsl.resolve.expanded import Core

DESCENT = ("dgd", "dgd_explicit", "dgd_first_layer")  # the readings of delta gradient descent


def want(ok: bool, obstacle: str) -> Obstacles:
    """One obstacle, unless it is well."""
    return [] if ok else [obstacle]


def gradient_apart(core: Core) -> Obstacles:
    """None of the fields that only some engines know, whatever `gradient` is."""
    return [
        *no_window(core),
        *no_constraint(core),
        *erases_the_key(core),
        *drops_partial_periods(core),
        *gates_per_head(core),
    ]


def no_window(core: Core) -> Obstacles:
    """Each write is for its own token."""
    return want(core.window is None, f"`window = {spelling.many(core.window or 1)}`")


def no_constraint(core: Core) -> Obstacles:
    """Weights are used as they were written."""
    return want(not core.constrain, "`constrain`")


def erases_the_key(core: Core) -> Obstacles:
    """What is erased lies along the key."""
    return want(not core.erase, "`erase` apart from the key")


def drops_partial_periods(core: Core) -> Obstacles:
    """A last, shorter period is read by no one."""
    return want(core.partial == "drop", f"`{core.partial}` of a partial period")


def gates_per_head(core: Core) -> Obstacles:
    """One number for each head and token."""
    return want("channel" not in (core.rate, core.retain, core.momentum), "a gate for each channel")


def rule(core: Core, *names: str) -> Obstacles:
    """One of these rules; what steps along gradients takes implicit steps too, by their rate."""
    implicit = core.rule == "gd_implicit" and "gd" in names and not core.normalise
    return want(implicit or core.rule in names, f"`rule = {spelling.rule(core)}`")


def map_kind(core: Core, *kinds: str) -> Obstacles:
    """One of these maps."""
    return want(core.map.kind in kinds, f"`map = {core.map.kind}`")


def objective(core: Core, *names: str) -> Obstacles:
    """One of these objectives."""
    return want(core.objective in names, f"`objective = {spelling.objective(core)}`")


def one_answer(core: Core) -> Obstacles:
    """The objective asks the memory for one answer a pair."""
    asked = core.expression.answers if core.expression is not None else ()
    return want(len(asked) < 2, "an objective of several answers")


def no_momentum(core: Core) -> Obstacles:
    """Writes do not go on moving."""
    return want(core.momentum == "none", "`momentum`")


def every_token(core: Core) -> Obstacles:
    """Gradients and reads move with every token."""
    return want(core.period == 1, f"a period of {core.period} tokens")


def frozen(core: Core) -> bool:
    """Whether gradients are taken at the weights of a period's start."""
    return isinstance(core.anchor, int) and core.anchor > 1


def stands_still(core: Core) -> Obstacles:
    """Gradients are taken at the weights of a period's start, and reads know no other period."""
    return [
        *want(frozen(core), "gradients at every token"),
        *want(not frozen(core) or core.update in (1, core.anchor), "an anchor apart from the update"),
    ]


def reads(core: Core, *names: str) -> Obstacles:
    """One of these reads."""
    return want(core.read in names, f"`read = {core.read}`")


def two_layers(core: Core) -> Obstacles:
    """A matrix, or an `mlp` of two layers without norm."""
    return [
        *want(core.map.kind != "mlp" or core.map.depth == 2, f"an `mlp` of depth {core.map.depth}"),
        *want(not core.map.norm, "a norm inside the map"),
    ]


def not_normalised(core: Core) -> Obstacles:
    """Reads are not divided."""
    return want(not core.normalise, "`normalise`")
