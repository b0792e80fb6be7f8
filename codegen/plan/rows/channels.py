"""Matrix memories with gates by channel, or erasure apart from the key."""

from __future__ import annotations

from nldsl.codegen.plan.asks import (
    drops_partial_periods,
    erases_the_key,
    every_token,
    map_kind,
    no_constraint,
    no_momentum,
    no_window,
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


def _plain(core: Core) -> Obstacles:
    return [
        *map_kind(core, "matrix"),
        *rule(core, "gd"),
        *no_momentum(core),
        *no_window(core),
        *no_constraint(core),
        *drops_partial_periods(core),
    ]


def _hebbian(core: Core) -> Obstacles:
    return [
        *objective(core, "dot"),
        *_plain(core),
        *reads(core, "after", "before", "boundary"),
        *erases_the_key(core),
    ]


def _delta(core: Core) -> Obstacles:
    return [
        *objective(core, "l2"),
        *_plain(core),
        *every_token(core),
        *want(core.anchor in ("retained", "current"), f"`anchor = {core.anchor}`"),
        *reads(core, "after", "before"),
        *not_normalised(core),
    ]


def _frozen(core: Core) -> Obstacles:
    return [
        *objective(core, "l2"),
        *_plain(core),
        *want("channel" in (core.rate, core.retain), "no gate for each channel"),
        *stands_still(core),
        *erases_the_key(core),
        *not_normalised(core),
    ]


def _read(core: Core) -> dict[str, Setting]:
    return {} if core.read == "after" else {"read": core.read}


def _hebbian_words(core: Core) -> dict[str, Setting]:
    words = _read(core) | settled_gradient(core)
    if core.boundary > 1:  # gradients of `dot` do not look at the weights, so no anchor matters
        words["period"] = core.boundary
    return words | {"normalise": True} if core.normalise else words


def _delta_words(core: Core) -> dict[str, Setting]:
    words = _read(core) | gradient_setting(core)
    return words if core.anchor == "retained" else {"anchor": core.anchor} | words


def _frozen_words(core: Core) -> dict[str, Setting]:
    return {"period": core.period} | _read(core) | gradient_setting(core)


ROWS = (
    Engine(
        "Hebbian tiles by channel",
        "channel_hebbian",
        "channels",
        "E2",
        "halved tiles, in which the gates of each channel are only ever multiplied",
        _hebbian,
        _hebbian_words,
        ("rate", "retain"),
    ),
    Engine(
        "delta tiles by channel",
        "channel_delta",
        "channels",
        "E4",
        "one unit lower-triangular solve a tile, erasing along and into directions of their own",
        _delta,
        _delta_words,
        ("rate", "retain", "erase"),
    ),
    Engine(
        "frozen gradient by channel",
        "channel_frozen",
        "channels",
        "E2, E5",
        "the scores of halved tiles, with errors taken at the period's start",
        _frozen,
        _frozen_words,
        ("rate", "retain"),
    ),
)
