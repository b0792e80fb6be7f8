"""What a memory lowers when it writes one pair, for one memory: no batch, no heads, no tokens.

"dot"                -<M(k), v>
"l2"                 1/2 |M(k) - v|^2
("lp", p)            sum_j |M(k)_j - v_j|^p, whose gradient is p sign(e) |e|^(p - 1)     (Moneta)
("huber", delta)     per channel 1/2 e^2 where |e| <= delta, else delta (|e| - delta / 2)   (Yaad)
"oja"                -<W k, v> + 1/2 |W^T v|^2, so that a step is rate v (k - W^T v)^T
                     (Nested Learning, eqs. 66-67, with half of the printed objective)
a callable           f(M, k, v) -> scalar, M the memory as a function
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor


def objective_value(
    objective: Any, read: Callable[[Tensor], Tensor], weights: dict[str, Tensor], key: Tensor, value: Tensor
) -> Tensor:
    """The objective of one pair, a scalar.

    Args:
        objective: one of the forms above.
        read: the memory with these weights, `[Dk] -> [Dv]`.
        weights: its weights; only `oja` looks at them.
        key: `[Dk]`.
        value: `[Dv]`.
    """
    if callable(objective):
        return cast("Tensor", objective(read, key, value))
    name, *arguments = (objective,) if isinstance(objective, str) else objective
    if name == "dot":
        return -(read(key) @ value)
    if name == "oja":
        return -(read(key) @ value) + 0.5 * (value @ weights["W"]).square().sum()
    error = read(key) - value
    if name == "l2":
        return 0.5 * error.square().sum()
    if name == "lp":
        return error.abs().pow(arguments[0]).sum()
    if name == "huber":
        (bound,) = arguments
        size = error.abs()
        return torch.where(size <= bound, 0.5 * error.square(), bound * (size - 0.5 * bound)).sum()
    raise ValueError(f"unknown objective {name!r}")
