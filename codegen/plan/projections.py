"""How a memory that writes its own projections is folded over a period: by the algebra of its rule."""

from __future__ import annotations

from nldsl.codegen.plan.engines import map_settings
from nldsl.records import record
from nldsl.resolve.expanded import Adaptive, Core, MemoryInstance


@record
class Fold:
    """The engine's function that writes one piece of a period into stacked memories."""

    function: str
    file: str
    reference: str
    keywords: dict[str, object]
    moments: bool


def looped(instance: MemoryInstance) -> bool:
    """Whether a memory's targets or projections depend on its own state, so that it runs period by period."""
    return bool(instance.adaptives()) or instance.core.target == "self"


def obstacles(instance: MemoryInstance) -> list[str]:
    """What keeps a self-modifying memory from being compiled; empty where nothing does."""
    core, found = instance.core, []
    nodes = [node for _, node in instance.adaptives()]
    if core.map.kind not in ("mlp", "matrix"):
        found.append(f"`map = {core.map.kind}` beside adaptive projections")
    if core.map.kind == "mlp" and (core.map.norm or core.map.depth != 2):
        found.append("a norm or more than two layers in a map beside adaptive projections")
    if any(_shape(node) != _own_shape(instance) for node in nodes):
        found.append("adaptive projections whose maps differ from the memory's own map")
    if any(node.settings for node in nodes):
        found.append("settings of a single adaptive projection")
    if core.rule not in ("gd", "dgd", "dgd_first_layer") or core.objective not in ("dot", "l2"):
        found.append(f"`rule = {core.rule}` with `objective = {core.objective}` beside adaptive projections")
    if core.anchor != core.update and core.period > 1:
        found.append("an anchor apart from the update")
    if core.update == 1 and core.anchor != "current":
        found.append("gradients at the retained weights; write `anchor = current`")
    others = (
        core.window,
        core.constrain,
        core.erase,
        core.normalise,
        core.gradient != "through",
        core.gradient_tokens,
        core.partial != "drop",
        core.writes > 1,
    )
    if any(others) or "channel" in (core.rate, core.retain, core.momentum):
        found.append(
            "a window, constraint, erase, normaliser, gradient, partial period, second write or channel gate "
            "beside adaptive projections"
        )
    return found


def all_obstacles(instance: MemoryInstance) -> list[str]:
    """What keeps code from being made for this memory at all."""
    if looped(instance):
        return obstacles(instance)
    return loop_obstacles(instance.core)


def loop_obstacles(core: Core) -> list[str]:
    """What even the token loop cannot do: then no other engine can."""
    one, found = core.map, []
    channels = [name for name in ("rate", "retain", "momentum") if getattr(core, name) == "channel"]
    if core.partial != "drop":
        found.append(f"`{core.partial}` of a partial period")
    if channels and one.kind not in ("matrix", "vector") and (one.kind, one.depth) != ("mlp", 1):
        found.append(f"a `{channels[0]}` for each channel beside `map = {one.kind}`")
    if core.rate == "channel" and core.rule == "gd_implicit":
        found.append("a `rate` for each channel in an implicit step")
    if core.erase and (one.kind != "matrix" or core.objective != "l2"):
        found.append(f"`erase` beside `map = {one.kind}` and `objective = {core.objective}`")
    return [*found, *writes_obstacles(core)]


def writes_obstacles(core: Core) -> list[str]:
    """What does not go with several writes for each token: everything that counts tokens but the retention."""
    if core.writes == 1:
        return []
    beside = [
        ("`map = cache`", core.map.kind == "cache"),
        (f"a period of {core.period} tokens", core.period > 1),
        ("a `window`", core.window is not None),
        ("a period of `constrain`", any(every > 1 for _, _, every in core.constrain)),
        ("`gradient = through N tokens`", core.gradient_tokens is not None),
    ]
    return [f"several writes for each token beside {what}" for what, there in beside if there]


def _shape(node: Adaptive) -> tuple[object, ...]:
    width = int(node.shape.width)
    return (
        node.map.kind,
        node.map.weights(width, width),
        node.map.residual,
        node.map.activation,
        node.map.norm,
    )


def _own_shape(instance: MemoryInstance) -> tuple[object, ...]:
    one = instance.core.map
    return (
        one.kind,
        one.weights(int(instance.key_width), int(instance.value_width)),
        one.residual,
        one.activation,
        one.norm,
    )


def fold(core: Core, lowering: str = "chunked") -> Fold:
    """The fold of a rule; call only where `obstacles` finds none."""
    if lowering == "reference":
        words: dict[str, object] = {"map": map_settings(core), "objective": core.objective, "rule": core.rule}
        return Fold("token_fold", "reference_fold", "f", words, core.momentum != "none")
    words = {"objective": core.objective}
    words |= {"residual": core.map.residual and core.map.kind == "mlp", "activation": core.map.activation}
    if core.rule == "gd":
        return Fold("frozen_fold", "frozen", "E6", words, core.momentum != "none")
    if core.rule == "dgd_first_layer":
        words["reading"] = "first_layer"
    moving = core.momentum != "none"
    engine = "E12" if core.map.kind == "mlp" else "E11" if moving else "E10"
    return Fold("deep_dgd_fold", "deep_dgd", engine, words, moving)
