"""How memories that write their own projections are stacked and folded: by the algebra of their rule."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

from nldsl.codegen.plan.engines import map_settings
from nldsl.records import record
from nldsl.resolve import spelling
from nldsl.resolve.expanded import Adaptive, Core, Map, MemoryInstance

FOLDED = ("gd", "dgd", "dgd_explicit", "dgd_first_layer")


@record
class Fold:
    """The engine's function that writes one piece of a period into stacked memories."""

    function: str
    file: str
    reference: str
    keywords: dict[str, object]
    moments: bool
    lowering: str = "chunked"


@record
class Slot:
    """Fast weights of one memory: the memory's own (without a `node`), or an adaptive projection's."""

    field: str
    node: Adaptive | None
    map: Map
    shapes: tuple[tuple[int, int], ...]
    period: int
    rule: str
    key: str  # `shared`, `own`, `own |> unit`
    target: str  # `value`, `self`

    @property
    def kind(self) -> tuple[object, ...]:
        """What memories have in common that are stacked and written together."""
        one = self.map
        alike = (one.kind, one.residual, one.activation, one.norm)
        return (self.shapes, alike, self.period, self.rule, self.key != "shared", self.key)


@record
class Group:
    """Memories that are stacked and written together, those taught the value before those that teach
    themselves.  `name` is empty for the memory's own group.
    """

    name: str
    slots: tuple[Slot, ...]
    fold: Fold

    @property
    def period(self) -> int:
        return self.slots[0].period

    @property
    def map(self) -> Map:
        return self.slots[0].map

    @property
    def key(self) -> str:
        return self.slots[0].key

    @property
    def taught(self) -> int:
        """How many are taught the value."""
        return sum(slot.target == "value" for slot in self.slots)


def looped(instance: MemoryInstance) -> bool:
    """Whether a memory's targets or projections depend on its own state, so that it runs period by period."""
    return bool(instance.adaptives()) or instance.core.target == "self"


def obstacles(instance: MemoryInstance) -> list[str]:
    """What keeps a self-modifying memory from being compiled; empty where nothing does."""
    core, found = instance.core, []
    slots = _slots(instance)
    maps = {slot.map.kind: slot.map for slot in slots}
    looping = "adaptive projections" if instance.adaptives() else "`target = self`"
    found += [f"`map = {kind}` beside {looping}" for kind in maps if kind not in ("mlp", "matrix")]
    if any(slot.map.norm for slot in slots):
        found.append(f"a norm in a map beside {looping}")
    if any(s.rule not in FOLDED for s in slots) or core.objective not in ("dot", "l2"):
        asked = f"`rule = {spelling.rule(core)}` with `objective = {spelling.objective(core)}`"
        found.append(f"{asked} beside {looping}")
    if core.update == 1 and isinstance(core.anchor, int):
        found.append("an anchor apart from the update")
    piece = min(slot.period for slot in slots)
    if any(slot.period % piece for slot in slots):
        found.append("adaptive projections whose periods do not nest")
    if core.gradient_tokens is not None and core.gradient_tokens % piece:
        found.append(f"`gradient = {spelling.gradient(core)}`, which cuts a period of {piece} tokens")
    channels = [name for name in ("rate", "retain", "momentum") if getattr(core, name) == "channel"]
    others = {
        f"`window = {spelling.many(core.window or 1)}`": core.window is not None,
        f"`constrain = {spelling.constrain(core)}`": bool(core.constrain),
        "`erase`": core.erase,
        "`normalise = sum`": core.normalise,
        f"`partial = {core.partial}`": core.partial != "drop",
        f"`writes = {core.writes}`": core.writes > 1,
        **{f"a `{name}` for each channel": True for name in channels},
    }
    found += [f"{what} beside {looping}" for what, there in others.items() if there]
    return found


def groups(instance: MemoryInstance, lowering: str = "chunked") -> tuple[Group, ...]:
    """The stacks of fast weights, the memory's own first; call only where `obstacles` finds none."""
    stacks: dict[tuple[object, ...], list[Slot]] = {}
    for slot in _slots(instance):
        stacks.setdefault(slot.kind, []).append(slot)
    found: list[Group] = []
    for slots in stacks.values():
        fields = list(dict.fromkeys(slot.field for slot in slots))
        name = "_and_".join(fields) if found else ""
        while name in [one.name for one in found]:
            name += "_too"
        own = replace(instance.core, map=slots[0].map, rule=slots[0].rule)
        ordered = sorted(slots, key=lambda slot: slot.target != "value")
        found.append(Group(name, tuple(ordered), fold(own, lowering)))
    return tuple(found)


def cycle(instance: MemoryInstance) -> int:
    """Tokens after which all clocks of a self-modifying memory stand where they began."""
    core = instance.core
    return lcm(core.gradient_tokens or 1, *(slot.period for slot in _slots(instance)))


def _slots(instance: MemoryInstance) -> list[Slot]:
    """The memory's own fast weights, then those of its projections."""
    core = instance.core
    own = core.map.weights(int(instance.key_width), int(instance.value_width))
    found = [Slot("", None, core.map, own, core.period, core.rule, "shared", core.target)]
    for name, node in instance.adaptives():
        width = int(node.shape.width)
        given = node.settings
        period, rule = int(given.get("update", core.period)), str(given.get("rule", core.rule))
        key, target = str(given.get("key", "shared")), str(given.get("target", "self"))
        found.append(Slot(name, node, node.map, node.map.weights(width, width), period, rule, key, target))
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
        found.append(f"`erase` beside `map = {one.kind}` and `objective = {spelling.objective(core)}`")
    return [*found, *writes_obstacles(core)]


def writes_obstacles(core: Core) -> list[str]:
    """What does not go with several writes for each token: all that counts tokens but the retention."""
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


def fold(core: Core, lowering: str = "chunked") -> Fold:
    """The fold of a rule; call only where `obstacles` finds none."""
    if lowering == "reference":
        words: dict[str, object] = {"map": map_settings(core), "objective": core.objective, "rule": core.rule}
        return Fold("token_fold", "reference_fold", "f", words, core.momentum != "none", lowering)
    words = {"objective": core.objective}
    words |= {"residual": core.map.residual and core.map.kind == "mlp", "activation": core.map.activation}
    if core.rule == "gd":
        return Fold("frozen_fold", "frozen", "E6", words, core.momentum != "none")
    if core.rule != "dgd":
        words["reading"] = core.rule.removeprefix("dgd_")
    moving = core.momentum != "none"
    engine = "E12" if core.map.kind == "mlp" else "E11" if moving else "E10"
    return Fold("deep_dgd_fold", "deep_dgd", engine, words, moving)
