"""The unit lower-triangular system that turns a chain of erasures into one solve."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class UnitLowerSolve(torch.autograd.Function):
    """X = T^{-1} B with T = I + tril(A, -1), by the explicit inverse that forward and backward share.

    dB = T^{-T} dX  and  dA = -tril(dB X^T, -1).  The inverse is an output too, so that the backward can
    itself be differentiated: its own gradient R gives dA = -tril(T^{-T} R T^{-T}, -1).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(lower: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(lower.device.type, enabled=False):  # else the product would be rounded
            wide = lower.to(torch.promote_types(lower.dtype, torch.float32))
            identity = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device).expand_as(wide)
            inverse = torch.linalg.solve_triangular(wide, identity, upper=False, unitriangular=True)
            return (inverse @ right.to(wide.dtype)).to(right.dtype), inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output)
        ctx.right_shape = inputs[1].shape
        ctx.dtypes = inputs[0].dtype, inputs[1].dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        solution, inverse = ctx.saved_tensors
        turned = inverse.transpose(-1, -2)
        grad_lower, grad_right = None, None
        if grads[0] is not None:
            grad_right = turned @ grads[0].to(inverse.dtype)
            grad_lower = (grad_right @ solution.to(inverse.dtype).transpose(-1, -2)).sum_to_size(
                inverse.shape
            )
            grad_right = grad_right.sum_to_size(ctx.right_shape).to(ctx.dtypes[1])
        if grads[1] is not None:
            through_inverse = turned @ grads[1] @ turned
            grad_lower = through_inverse if grad_lower is None else grad_lower + through_inverse
        return None if grad_lower is None else -grad_lower.tril(-1).to(ctx.dtypes[0]), grad_right


def unit_lower_solve(lower: Tensor, right: Tensor) -> Tensor:
    """Solve (I + tril(lower, -1)) X = right.

    Args:
        lower: `[..., C, C]`; only what is strictly below the diagonal is read.
        right: `[..., C, R]`; its leading dims broadcast against those of `lower`, so that one system serves
            several.
    """
    solution: Tensor = UnitLowerSolve.apply(lower, right)[0]  # type: ignore[index]
    return solution
