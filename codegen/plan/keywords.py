"""A memory's algebra as the settings of the token loop, which other engines take some of."""

from __future__ import annotations

from nldsl.codegen.plan.engine import Setting
from nldsl.codegen.plan.gradients import gradient_setting
from nldsl.resolve.expanded import Core


def reference_keywords(core: Core) -> dict[str, Setting]:
    """All settings of the token loop that differ from its defaults."""
    words: dict[str, object] = {"map": map_settings(core), "objective": core.objective, "rule": core.rule}
    if core.objective_parameter is not None:
        words["objective_parameter"] = core.objective_parameter
    if core.rule_parameter is not None:
        words["rule_parameter"] = core.rule_parameter
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
