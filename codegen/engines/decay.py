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


class DecayMatrix(torch.autograd.Function):
    """Log-space products, masked before the exponential, with a backward that never subtracts.

    With P = dD * D, the gradient of r_s is sum_{i < s <= t} P_ti / r_s.  Differentiating through the
    cumulative sum of logs would take the difference of two sums instead, and lose everything where a gate
    is closed.  There the backward works with a gate of `floor`, which the division takes out again; the
    forward is exactly 0.  A gate that has left its range below 0 counts with its sign.
    """

    generate_vmap_rule = True
    floor = 1e-30  # below every rounding error, and its log is still small

    @staticmethod
    def products(retain: Tensor, closed: Tensor | None = None) -> Tensor:
        """D of gates of at least `floor` in size, in float32 or better; 0 across one that is `closed`."""
        size = retain.shape[-1] + 1
        wide = retain.to(torch.promote_types(retain.dtype, torch.float32))
        logs = _from_boundary(wide.abs().clamp(min=DecayMatrix.floor).log().cumsum(-1), 0.0)
        gone = torch.ones(size, size, dtype=torch.bool, device=retain.device).triu(1)
        if closed is not None:
            met = _from_boundary(closed.cumsum(-1), 0)
            gone = gone | (met.unsqueeze(-1) != met.unsqueeze(-2))
        spans = (logs.unsqueeze(-1) - logs.unsqueeze(-2)).masked_fill(gone, float("-inf")).exp()
        signs = _from_boundary(torch.where(wide < 0, -1.0, 1.0).to(wide.dtype).cumprod(-1), 1.0)
        return spans * signs.unsqueeze(-1) * signs.unsqueeze(-2)

    @staticmethod
    def forward(retain: Tensor) -> Tensor:
        return DecayMatrix.products(retain, retain == 0).to(retain.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)  # the products are made again: a square is more to keep than a row

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (retain,) = ctx.saved_tensors
        decays = DecayMatrix.products(retain)
        earlier = (grads[0] * decays).cumsum(-1)[..., 1:, :-1]  # [t, s]: summed over i < s
        summed = earlier.tril().sum(-2)
        wide = retain.to(decays.dtype)  # in float16 the floor would be 0
        at_least = wide.abs().clamp(min=DecayMatrix.floor)
        return (summed / torch.where(wide < 0, -at_least, at_least)).to(retain.dtype)


def _from_boundary(along: Tensor, first: float) -> Tensor:
    """`[..., C]` with the value of the boundary before it, `[..., C + 1]`."""
    return torch.nn.functional.pad(along, (1, 0), value=first)


def decay_matrix(retain: Tensor) -> Tensor:
    """`D[..., C + 1, C + 1]` of gates `[..., C]`; exact at 0 and 1, differentiable there, and of any sign."""
    decays: Tensor = DecayMatrix.apply(retain)  # type: ignore[assignment]
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
