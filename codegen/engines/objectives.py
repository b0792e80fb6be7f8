"""What a memory lowers when it writes a pair, for one memory: no batch, no heads.

Pairs are vectors, or stacks of them with tokens in front: sums run over the last axis.

"dot"                -<M(k), v>
"l2"                 1/2 |M(k) - v|^2
("lp", p)            sum_j |M(k)_j - v_j|^p, whose gradient is p sign(e) |e|^(p - 1)     (Moneta)
("huber", delta)     per channel 1/2 e^2 where |e| <= delta, else delta (|e| - delta / 2), delta a number or
                     one for each pair, `[...]`   (Yaad)
"oja"                -<W k, v> + 1/2 |W^T v|^2, so that a step is rate v (k - W^T v)^T
                     (Nested Learning, eqs. 66-67, with half of the printed objective)
a callable           f(M, k, v) -> one number for each pair, M the memory as a function
(callable, *p)       f(M, k, v, *p), with parameters of each pair, `[..., 1]` or `[..., n]`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from nldsl.codegen.engines.parts import full_precision


def objective_value(
    objective: Any, read: Callable[[Tensor], Tensor], weights: dict[str, Tensor], key: Tensor, value: Tensor
) -> Tensor:
    """The objective of each pair, `[...]`.

    Args:
        objective: one of the forms above.
        read: the memory with these weights, `[..., Dk] -> [..., Dv]`.
        weights: its weights; only `oja` looks at them.
        key: `[..., Dk]`.
        value: `[..., Dv]`.
    """
    name, *arguments = objective if isinstance(objective, tuple) else (objective,)
    if callable(name):
        return cast("Tensor", name(read, key, value, *arguments))
    if name == "dot":
        return -(read(key) * value).sum(-1)
    if name == "oja":
        return 0.5 * (value @ weights["W"]).square().sum(-1) - (read(key) * value).sum(-1)
    error = read(key) - value
    if name == "l2":
        return 0.5 * error.square().sum(-1)
    if name == "lp":
        return full_precision(error).abs().pow(arguments[0]).sum(-1)
    if name == "huber":
        bound = arguments[0].unsqueeze(-1) if isinstance(arguments[0], Tensor) else arguments[0]
        size = error.abs()
        return torch.where(size <= bound, 0.5 * error.square(), bound * (size - 0.5 * bound)).sum(-1)
    raise ValueError(f"unknown objective {name!r}")


def parametrised(objective: Any, parameter: float | Tensor | tuple[Tensor, ...] | None) -> Any:
    """The objective as `objective_value` takes it; what differs by token comes with the pairs."""
    return objective if parameter is None or tokenwise(parameter) else (objective, parameter)


def tokenwise(parameter: float | Tensor | tuple[Tensor, ...] | None) -> dict[str, Tensor]:
    """What of an objective's parameters differs by token, by the name that a window keeps it under."""
    if isinstance(parameter, Tensor):
        return {"threshold": parameter}
    if isinstance(parameter, tuple):
        return {f"parameter_{n}": one for n, one in enumerate(parameter, 1)}
    return {}


def with_parameters(objective: Any, own: tuple[Tensor, ...]) -> Any:
    """The objective with the parameters of its pairs, where it has any."""
    return (objective, *own) if own else objective
