"""How the loss flows through a memory's writes: the setting of an engine, and what it changes there."""

from __future__ import annotations

from nldsl.codegen.plan.engine import Engine, Setting
from nldsl.resolve.expanded import Core


def gradient_setting(core: Core) -> dict[str, Setting]:
    """The keyword `gradient` of an engine; nothing where the loss flows through every write."""
    if core.gradient_tokens is not None:
        return {"gradient": ("through", core.gradient_tokens)}
    return {} if core.gradient == "through" else {"gradient": core.gradient}


def settled_gradient(core: Core) -> dict[str, Setting]:
    """`gradient_setting` where no gradient looks at the weights: the first order is all there is."""
    return {} if core.gradient == "first_order" else gradient_setting(core)


def gradient_note(engine: Engine, core: Core) -> str:
    """What `gradient` changes in the way `engine` computes; empty where it changes nothing."""
    if core.gradient_tokens is not None:
        return f"cut every {core.gradient_tokens} tokens, where tiles end"
    match core.gradient, engine.function:
        case "first_order", "hebbian" | "channel_hebbian" | "attention" | "ridge":
            return "`first_order` is the full gradient: nothing that is written depends on the weights"
        case "first_order", "delta" | "delta_frozen" if core.objective == "dot":
            return "`first_order` is the full gradient: only the erasure depends on the weights"
        case "first_order", "delta":
            return "the solve runs without gradient, then its writes as Hebbian tiles, with live keys"
        case "stop", "delta" | "delta_frozen":
            return "the solve runs without gradient; what it writes is read as constants, in Hebbian tiles"
        case "first_order", "channel_delta":
            return "a solve without gradient gives what the constant weights answer, then Hebbian tiles"
        case "stop", "channel_delta":
            return "the solve runs without gradient; what it writes is read as constants, in Hebbian tiles"
        case "first_order", "heavy_ball" if core.objective == "dot":
            return "`first_order` is the full gradient: no gradient looks at the weights"
        case "first_order", "heavy_ball" if not isinstance(core.anchor, int):
            return "a solve without gradient gives what the constant weights answer to the live keys"
        case "stop", "heavy_ball":
            return "the solve runs without gradient; what it writes is read as constants"
        case "first_order", _:
            return "the weights inside the inner gradient are constants"
        case "stop", _:
            return "what is written is a constant"
        case _:
            return ""
