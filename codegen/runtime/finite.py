"""Where numbers end: naming the weight, the state or the part that first gave one that is not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from schedule import UserError


def all_finite(value: Any) -> bool:
    """Whether no tensor in nested dicts, lists and tuples holds NaN or an infinity.

    >>> all_finite({"a": torch.ones(2)}), all_finite([torch.tensor(float("nan"))])
    (True, False)
    """
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return all(all_finite(part) for part in parts)


def first_not_finite(model: nn.Module, tokens: Tensor, state: Any = None) -> tuple[str, str] | None:
    """The module where numbers first stop being finite, by name and class; None if they all are."""
    names = {module: name for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, given: Any, result: Any) -> None:
        if not found and not all_finite(result):
            name = names[module]
            found.append(name if all_finite(given) else name.rpartition(".")[0])  # fed by its parent

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.no_grad():
            model(tokens, state)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return None
    return found[0] or "the model", type(model.get_submodule(found[0])).__name__


def blame(model: nn.Module, tokens: Tensor, state: Any = None) -> str:
    """What is at fault for logits that are not finite, in words: a weight, the state, or a part."""
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if not all_finite(weight):
            return f"the weight `{name}` is not finite"
    if not all_finite(state):
        return "the state that the tokens before it left is not finite"
    part = first_not_finite(model, tokens, state)
    if part is None:
        return "its logits are too large for a loss"
    name, kind = part
    return f"`{name}` ({kind}) leaves the numbers by itself"


def not_finite(what: str, model: nn.Module, tokens: Tensor, state: Any = None) -> UserError:
    """The error of logits that are not finite.

    Args:
        what: the number that was seen and where.
        model: the model that gave it.
        tokens: what it was given, `[batch, length]`.
        state: and the state it went on from.
    """
    weights_fit = all_finite([*model.parameters(), *model.buffers()])
    return UserError(
        f"{what}: {blame(model, tokens, state)}",
        help=(
            "where a memory is at fault, bound what it writes (keys and values of length 1, a smaller rate, "
            "a retain below 1)"
            if weights_fit
            else "use an earlier checkpoint"  # there is one: no run begins with such a weight
        ),
        kind="diverged",
    )
