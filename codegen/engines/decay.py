"""Products of retention gates between any two tokens of a tile.

For gates r_1 .. r_C the decay matrix is D_ti = r_{i+1} ... r_t for 0 <= i <= t <= C and 0 above the
diagonal.  Row and column 0 stand for the boundary before the tile, so one matrix holds all that an engine
needs: column 0 is what is left of the boundary's weights, rows 1.. are reads after the write of a token,
rows ..C-1 reads before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LEAST_GATE = 1e-30  # below every rounding error, and its log is still small


def gate_products(retain: Tensor) -> Tensor:
    """D of gates of at least `LEAST_GATE` in size, in float32 or better."""
    wide = retain.to(torch.promote_types(retain.dtype, torch.float32))
    logs = _from_boundary(wide.abs().clamp(min=LEAST_GATE).log().cumsum(-1), 0.0)
    between = (logs.unsqueeze(-1) - logs.unsqueeze(-2)).tril()  # above the diagonal it might overflow
    spans = between.exp().tril()
    signs = _from_boundary(torch.where(wide < 0, -1.0, 1.0).to(wide.dtype).cumprod(-1), 1.0)
    return spans * signs.unsqueeze(-1) * signs.unsqueeze(-2)


class DecayMatrix(torch.autograd.Function):
    """Log-space products, masked before the exponential, with a backward that never subtracts.

    With P = dD * D, the gradient of r_s is sum_{i < s <= t} P_ti / r_s.  Differentiating through the
    cumulative sum of logs would take the difference of two sums instead, and lose everything where a gate
    is closed.  There the backward works with a gate of `LEAST_GATE`, which the division takes out again; the
    forward is exactly 0.  A gate that has left its range below 0 counts with its sign.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(retain: Tensor) -> tuple[Tensor, Tensor]:
        products = gate_products(retain)
        met = _from_boundary((retain == 0).cumsum(-1), 0)
        closed = met.unsqueeze(-1) != met.unsqueeze(-2)
        return products.masked_fill(closed, 0.0).to(retain.dtype), products

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        retain, products = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: the products as a function of the gates
            products = gate_products(retain)
        upper = torch.ones_like(products[(0,) * (products.dim() - 2)]).triu()
        earlier = (grads[0] * products @ upper)[..., 1:, :-1]  # [t, s]: summed over i < s
        summed = earlier.tril().sum(-2)
        wide = retain.to(products.dtype)  # in float16 the floor would be 0
        at_least = wide.abs().clamp(min=LEAST_GATE)
        return (summed / torch.where(wide < 0, -at_least, at_least)).to(retain.dtype)


def _from_boundary(along: Tensor, first: float) -> Tensor:
    """`[..., C]` with the value of the boundary before it, `[..., C + 1]`."""
    return torch.nn.functional.pad(along, (1, 0), value=first)


def decay_matrix(retain: Tensor) -> Tensor:
    """`D[..., C + 1, C + 1]` of gates `[..., C]`; exact at 0 and 1, differentiable there, and of any sign."""
    decays: Tensor = DecayMatrix.apply(retain)[0]  # type: ignore[index]
    return decays


def momentum_matrix(decays: Tensor, pushes: Tensor, moves: Tensor | None = None) -> Tensor:
    """How much of each gradient has reached the weights: `[..., C + 1, C + 1]`.

    S_t = b_t S_{t-1} - x_t and W_t = r_t W_{t-1} + c_t S_t give W_t = D_t0 W_0 + M_t0 S_0 - sum_i M_ti x_i
    with M = D diag(c) B (Nested Learning reference, engine E6, and E9 for c).

    Args:
        decays: D, the decay matrix of the retention, `[..., C + 1, C + 1]`.
        pushes: B, the decay matrix of the momentum gates, the same shape.
        moves: c, `[..., C]`: 1, and 0 for padding, which must not move the weights again; all 1 where not
            given.
    """
    moved = decays[..., :, 1:] if moves is None else decays[..., :, 1:] * moves.unsqueeze(-2)
    return moved @ pushes[..., 1:, :]
