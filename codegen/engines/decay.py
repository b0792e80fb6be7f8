"""Products of retention gates between any two tokens of a tile.

For gates r_1 .. r_C the decay matrix is D_ti = r_{i+1} ... r_t for 0 <= i <= t <= C and 0 above the diagonal.
Row and column 0 stand for the boundary before the tile, so one matrix holds all that an engine needs:
column 0 is what is left of the boundary's weights, rows 1.. are reads after the write of a token, rows ..C-1 reads before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DecayMatrix(torch.autograd.Function):
    """Log-space products, masked before the exponential, with a backward that never subtracts.

    With P = dD * D, the gradient of r_s is sum_{i < s <= t} P_ti / r_s.  Differentiating through the cumulative sum of
    logs would take the difference of two sums instead, and lose everything where a gate is closed.
    """

    generate_vmap_rule = True
    floor = 1e-30  # stands for a closed gate: below every rounding error, and its log is still small

    @staticmethod
    def forward(retain: Tensor) -> Tensor:
        size = retain.shape[-1] + 1
        logs = torch.nn.functional.pad(retain.clamp(min=DecayMatrix.floor).log().cumsum(-1), (1, 0))
        lower = torch.ones(size, size, dtype=torch.bool, device=retain.device).tril()
        spans = logs.unsqueeze(-1) - logs.unsqueeze(-2)
        return spans.masked_fill(~lower, float("-inf")).exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        retain, decays = ctx.saved_tensors
        size = decays.shape[-1]
        upper = torch.ones(size, size, dtype=decays.dtype, device=decays.device).triu()
        later = upper @ (grads[0] * decays)  # [s, i]: summed over t >= s
        return later.tril(-1).sum(-1)[..., 1:] / retain.clamp(min=DecayMatrix.floor)


def decay_matrix(retain: Tensor) -> Tensor:
    """`D[..., C + 1, C + 1]` of the gates `[..., C]`, each in [0, 1]; exact at 0 and 1, differentiable there."""
    decays: Tensor = DecayMatrix.apply(retain)  # type: ignore[assignment]
    return decays


def momentum_matrix(decays: Tensor, momentum: Tensor) -> Tensor:
    """How much of each gradient has reached the weights: `[..., C + 1, C + 1]`.

    S_t = b_t S_{t-1} - x_t and W_t = r_t W_{t-1} + S_t give W_t = D_t0 W_0 + M_t0 S_0 - sum_i M_ti x_i with
    M = D B, where B is the decay matrix of the momentum gates (Nested Learning reference, engine E6).

    Args:
        decays: the decay matrix of `retain`, `[..., C + 1, C + 1]`.
        momentum: the decay matrix of the momentum gates, same shape.
    """
    return decays[..., :, 1:] @ momentum[..., 1:, :]
