"""A declared rule as the step of a core: its function, run from the text that a build would hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nldsl.resolve.algorithm import Algorithm

if TYPE_CHECKING:
    from torch import Tensor


def step_function(rule: Algorithm) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """`f(weight, grad, state, rate, step)` of one memory; see `engines.inner_rule`."""
    import torch
    from torch import Tensor

    from nldsl.codegen.emit.printer import statement
    from nldsl.codegen.emit.rule_functional import inner_step

    function, kernels = inner_step(rule, "rule_step")
    text = "\n".join(["from __future__ import annotations", *statement(function)])
    scope: dict[str, Any] = {"torch": torch, "math": math, "Tensor": Tensor}
    for name, file in kernels.items():
        scope[name] = getattr(import_module(f"nldsl.codegen.engines.{file}"), name)
    exec(compile(text, f"<{rule.name}>", "exec"), scope)  # noqa: S102 -- text of our own making
    return scope["rule_step"]
