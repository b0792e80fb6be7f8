"""Learning rules as optimizers of any PyTorch model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

_NEED_INPUTS = {
    "dgd": "delta gradient descent erases along each layer's input",
    "deep_momentum": "deep momentum learns from each layer's input",
}


def rule(
    name: str,
    model_or_params: nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]],
    rate: float,
    **options: Any,
) -> Optimizer:
    """The learning rule `name` as a `torch.optim.Optimizer`.

    Args:
        name: `gd`, `momentum`, `nesterov`, `adagrad`, `rmsprop`, `adam`, `adamw`, `muon`, `delta_momentum`
            or `m3` (Nested Learning, sections 4 and 7), as in a spec's `rule = m3(rate = 1e-3)`.
        model_or_params: a module, parameters, or parameter groups. Of a module, all parameters that need a
            gradient are taken, and rules for matrices leave its embeddings (and a head tied to one) to
            AdamW.
        rate: the step size, a number of at least 0; a scheduler may change it.
        options: the rule's own, by the names they have in a spec, such as `beta`, `decay` or `period`.

    Raises:
        ValueError: an unknown rule or option (the nearest are named), a bad rate, nothing to learn, or a rule
            that needs the inputs of each layer.
        TypeError: neither a module nor parameters.

    >>> import torch
    >>> type(rule("muon", torch.nn.Linear(4, 4), rate=0.02)).__name__
    'Muon'
    """
    import torch
    from torch import nn

    from nldsl.codegen.runtime.rules import make

    if name in _NEED_INPUTS:
        raise ValueError(
            f"`{name}` cannot be an outer rule: {_NEED_INPUTS[name]}, and an optimizer sees only gradients; "
            "use it as the `rule` of a memory in a spec"
        )
    given: Any = rate  # callers without a type checker may give anything
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(rate) or rate < 0:
        raise ValueError(f"the rate is {rate!r}; give a finite number of at least 0")
    groups: list[Any]
    learned: Any = model_or_params
    if isinstance(learned, nn.Module):
        groups = _groups(learned)
    elif isinstance(learned, torch.Tensor):
        raise TypeError("one tensor was given where parameters are taken; write `[parameter]`")
    elif isinstance(learned, Iterable):
        groups = list(learned)
    else:
        raise TypeError(f"a `{type(learned).__name__}` is neither a module nor parameters")
    if not groups:
        raise ValueError("there is nothing to learn: no parameter needs a gradient")
    return make(name, groups, rate, **options)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Embeddings apart from the rest; each parameter once."""
    from torch import nn

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    learned = [p for p in model.parameters() if p.requires_grad]
    plain = [p for p in learned if id(p) not in embeddings]
    looked_up = [p for p in learned if id(p) in embeddings]
    groups: list[dict[str, Any]] = [{"params": plain}] if plain else []
    return [*groups, {"params": looked_up, "matrix": False}] if looked_up else groups
