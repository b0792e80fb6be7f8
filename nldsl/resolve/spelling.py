"""The fields of a memory's algebra as the language writes them."""

from __future__ import annotations

from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.expanded import Core, Map


def rule(core: Core) -> str:
    """`gd`, `gd(implicit)`, `dgd(first_layer)`, `ridge(0.5)`, `adamw(beta1 = 0.9)`."""
    if core.optimizer is not None:
        return optimizer(core.optimizer)
    if core.rule_parameter is not None:
        return f"{core.rule}({core.rule_parameter:g})"
    return spelled(core.rule)


def optimizer(one: Algorithm) -> str:
    """`adamw(beta1 = 0.9, decay = 0.1)`: a rule with its words and options, its rate apart."""
    given = [f"{name} = {word}" for name, word in one.words.items()]
    given += [f"{name} = {value:g}" for name, value in one.options.items()]
    return f"{one.name}({', '.join(given)})" if given else one.name


def spelled(rule: str) -> str:
    """A rule's word: `gd_implicit` is `gd(implicit)`."""
    name, _, reading = rule.partition("_")
    return f"{name}({reading})" if reading else name


def objective(core: Core) -> str:
    """`l2`, `lp(3)`, or an expression as it stands in the spec."""
    number = core.objective_parameter
    return core.lowers if number is None else f"{core.lowers}({number:g})"


def mapping(map: Map) -> str:
    """`matrix`, `mlp(64, depth = 3, residual)`, `cache(32, sinks = 4)`."""
    words: list[str] = []
    if map.kind in ("mlp", "swiglu"):
        words += [f"hidden = {int(map.hidden)}"] if map.hidden is not None and map.depth > 1 else []
    if map.kind == "mlp":
        words += [f"depth = {map.depth}"]
        words += [word for word, there in (("residual", map.residual), ("norm", map.norm)) if there]
        words += [f"activation = {map.activation}"] if map.activation != "gelu" else []
    if map.kind == "cache":
        words += [f"window = {map.window}"] if map.window is not None else ["all"]
        words += [f"sinks = {map.sinks}"] if map.sinks else []
    name = map.call or map.kind
    return f"{name}({', '.join(words)})" if words else name


def every(tokens: int) -> str:
    """`every 1 token`, `every 16 tokens`."""
    return f"every {many(tokens)}"


def many(tokens: int) -> str:
    """`1 token`, `16 tokens`."""
    return f"{tokens} token{'s' * (tokens != 1)}"


def anchor(core: Core) -> str:
    """`retained`, `current`, `every 16 tokens`."""
    return every(core.anchor) if isinstance(core.anchor, int) else core.anchor


def gradient(core: Core) -> str:
    """`through`, `first_order`, `stop`, `through 32 tokens`."""
    return core.gradient if core.gradient_tokens is None else f"through {many(core.gradient_tokens)}"


def constrain(core: Core) -> str:
    """`norm`, `lq(4) every 16 tokens`; several one after the other."""
    return ", ".join(
        name + ("" if number is None else f"({number:g})") + (f" {every(period)}" if period > 1 else "")
        for name, number, period in core.constrain
    )


def setting(name: str, value: object, core: Core) -> str:
    """A setting of an engine as the field of the memory that it comes from."""
    match name:
        case "map" | "residual" | "activation" | "norm" | "depth":
            return f"map = {mapping(core.map)}"
        case "window" | "sinks" if core.map.kind == "cache":
            return f"map = {mapping(core.map)}"
        case "objective" | "objective_parameter":
            return f"objective = {objective(core)}"
        case "rule" | "memories" | "sees" | "strength" | "reading" | "rule_parameter":
            return f"rule = {rule(core)}"
        case "erase" if value is True:
            return f"rule = {rule(core)}"
        case "period" if core.update > 1:
            return f"update = {every(core.update)}"
        case "anchor" | "period" | "erase":
            return f"anchor = {anchor(core)}"
        case "update":
            return f"update = {every(core.update)}"
        case "gradient":
            return f"gradient = {gradient(core)}"
        case "constrain":
            return f"constrain = {constrain(core)}"
        case "window":
            return f"window = {many(core.window or 1)}"
        case "normalise":
            return "normalise = sum"
        case _:
            return f"{name} = {str(value).lower() if isinstance(value, bool) else value}"
