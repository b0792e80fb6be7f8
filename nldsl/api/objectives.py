"""An objective written as an expression, as a function: run from the text that a build would hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nldsl.resolve.expanded import Expression

if TYPE_CHECKING:
    from torch import Tensor


def objective_function(expression: Expression) -> Callable[..., Tensor]:
    """`f(memory, key, value, *parameters)`, one number for each pair; see `engines.objectives`.

    `memory` maps `[..., Dk]` to `[..., Dv]`; parameters are `[..., 1]` or `[..., n]`.
    """
    import torch
    from torch import Tensor
    from torch.nn import functional

    from nldsl.codegen.emit.objectives import objective_method
    from nldsl.codegen.emit.printer import statement

    _, function = objective_method(expression, "objective")
    text = "\n".join(["from __future__ import annotations", *statement(function)])
    scope: dict[str, Any] = {"torch": torch, "F": functional, "Any": Any, "Tensor": Tensor}
    exec(compile(text, f"<{expression.written}>", "exec"), scope)  # noqa: S102 -- text of our own making
    return scope["objective"]
