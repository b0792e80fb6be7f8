"""Parts of learning rules as functions of plain tensors, for rules that are differentiated or run in batches.

Matrices are `[..., rows, columns]`; everything in front is a batch, and nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.maps import activated, layer_normed


def token_gram(rows: Tensor) -> Tensor:
    """The mean of x x^T over the rows x of `[..., tokens, width]`."""
    return rows.mT @ rows / rows.shape[-2]


def whole_mean(matrix: Tensor) -> Tensor:
    """The mean of all numbers of `[..., rows, columns]` or of a vector, with axes of one."""
    return matrix.mean((-2, -1), keepdim=True) if matrix.ndim > 1 else matrix.mean()


def whole_norm(matrix: Tensor) -> Tensor:
    """The root of the sum of their squares."""
    square = matrix.square()
    return rule_root(square.sum((-2, -1), keepdim=True) if matrix.ndim > 1 else square.sum())


def rule_root(tensor: Tensor) -> Tensor:
    """The square root, whose slope at 0 is 0: a gradient that is 0 moves nothing, and has no slope."""
    zero = tensor == 0
    return torch.where(zero, torch.zeros_like(tensor), torch.where(zero, 1.0, tensor).sqrt())


def identity_beside(weight: Tensor, size: int) -> Tensor:
    """The identity of `size` rows, of the kind of `weight`."""
    return torch.eye(size, dtype=weight.dtype, device=weight.device)


def regressed_rows(
    memory: Tensor, key: Tensor, value: Tensor, rate: Any, retain: Any = 1.0, *, current: bool = False
) -> Tensor:
    """Return retain m - rate (m' key^T - value^T) key, m' being m (`current`) or what is retained of it."""
    kept = retain * memory
    return kept - rate * ((memory if current else kept) @ key.mT - value.mT) @ key


def regressed_rows_implicitly(
    memory: Tensor, key: Tensor, value: Tensor, rate: Any, retain: Any = 1.0
) -> Tensor:
    """Return (retain m + rate value^T key) (I + rate key^T key)^-1."""
    written = retain * memory + rate * value.mT @ key
    square = identity_beside(key, key.shape[-1]) + rate * key.mT @ key
    return torch.linalg.solve(square, written, left=False)


def rule_answer(
    layers: Sequence[Tensor],
    rows: Tensor,
    *,
    residual: bool = False,
    norm: bool = False,
    activation: str = "gelu",
) -> Tensor:
    """What a net of linear layers `[..., out, in]` says to each row of `[..., tokens, in]`."""
    signal = rows @ layers[0].mT
    for layer in layers[1:]:
        signal = activated(activation, signal) @ layer.mT
    signal = layer_normed(signal) if norm else signal
    return rows + signal if residual else signal


def rule_slope(layers: Sequence[Tensor], rows: Tensor, **form: Any) -> Tensor:
    """The derivative of a net, `[out, in]`, averaged over the rows of `[tokens, in]`."""

    def moved(shift: Tensor) -> Tensor:
        return rule_answer(layers, rows + shift, **form).mean(-2)

    return torch.func.jacrev(moved)(torch.zeros_like(rows[0]))


def descended_net(
    layers: Sequence[Tensor],
    key: Tensor,
    value: Tensor,
    rate: Any,
    retain: Any = 1.0,
    *,
    dot: bool = False,
    current: bool = False,
    **form: Any,
) -> list[Tensor]:
    """Return retain m - rate times the gradient of 1/2 |m'(key) - value|^2; `dot`: of -<m'(key), value>."""
    kept = [retain * layer for layer in layers]

    def loss(asked: list[Tensor]) -> Tensor:
        said = rule_answer(asked, key, **form)
        return -(said * value).sum() if dot else (said - value).square().sum() / 2

    slopes = torch.func.grad(loss)(list(layers) if current else kept)
    return [layer - rate * slope for layer, slope in zip(kept, slopes, strict=True)]
