"""A memory's algebra as the settings of the token loop, which other engines take some of."""

from __future__ import annotations

from nldsl.codegen.plan.engine import Setting
from nldsl.codegen.plan.gradients import gradient_setting
from nldsl.resolve.algorithm import WEIGHT, Algorithm, seen_signals
from nldsl.resolve.expanded import Core


def reference_keywords(core: Core) -> dict[str, Setting]:
    """All settings of the token loop that differ from its defaults."""
    words: dict[str, object] = {"map": map_settings(core), "objective": core.objective, "rule": core.rule}
    if core.objective_parameter is not None:
        words["objective_parameter"] = core.objective_parameter
    if core.rule_parameter is not None:
        words["rule_parameter"] = core.rule_parameter
    if core.optimizer is not None:
        words["memories"] = kept(core.optimizer)
        words |= {"sees": sees} if (sees := seen(core.optimizer)) else {}
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
    return words | gradient_setting(core)  # type: ignore[return-value]


def kept(algorithm: Algorithm) -> dict[str, tuple[str | int, ...]]:
    """The tensors that a rule keeps for each weight: their axes, and how those begin that are not zeros."""
    found: dict[str, tuple[str | int, ...]] = {}
    for memory in algorithm.memories:
        out, into = memory.axes
        if memory.map.kind != "mlp":
            found[memory.name] = (out, into)
        else:
            hidden: str | int = int(memory.map.hidden) if memory.map.hidden else f"4 {into}"
            widths = (into, *(hidden,) * (memory.map.depth - 1), out)
            for layer, shape in enumerate(zip(widths[1:], widths, strict=False)):
                begins: tuple[str, ...] = (f"drawn {layer}",) if memory.start == "drawn" else ("apart",)
                last = memory.start != "drawn" and layer == len(widths) - 2
                found[f"{memory.name}_{layer + 1}"] = (*shape, *(() if last else begins))
        if memory.update is not None:
            found[f"{memory.name}_period"] = WEIGHT
    return found


def seen(algorithm: Algorithm) -> tuple[str, ...]:
    """What of the layers a rule reads inside the sequence, as `seen_signals` names it."""
    return tuple(sorted(seen_signals(algorithm)))


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
            return {"kind": "cache", "window": one.window} | ({"sinks": one.sinks} if one.sinks else {})
        case _:
            return {"kind": one.kind}
