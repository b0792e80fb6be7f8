"""Length and causal convolution of features with backwards in closed form.

On a CPU, models as small as these wait for memory, not for arithmetic: a backward that autograd puts
together from the steps of the forward passes over the features up to three times as often as it has to.

    unit      y = x / max(|x|, eps)             dx = (dy - y (y . dy)) / |x|
    conv      y_t = sum_j w_j x_{t-j}           dx_t = sum_j w_j dy_{t+j},   dw_j = sum_t x_{t-j} dy_t

Where the backward is to be differentiated in its turn, or a compiler fuses the steps by itself, each is
computed by its plain form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def unit_plainly(x: Tensor, least: float) -> Tensor:
    """Vectors along the last axis divided by their length, or by `least` where they are shorter."""
    return F.normalize(x, dim=-1, eps=least)


class UnitVectors(torch.autograd.Function):
    """`unit_plainly` with a backward of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, least: float) -> tuple[Tensor, Tensor]:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length.clamp(min=least), length

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.least = inputs[1]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, length = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.func.vjp(lambda z: unit_plainly(z, ctx.least), x)[1](grads[0])[0], None
        divisor = length.clamp(min=ctx.least)
        along = (grads[0] * x).sum(-1, keepdim=True) * (length >= ctx.least) / divisor.square()
        return (grads[0] - x * along).div_(divisor), None


def causal_conv_plainly(x: Tensor, weight: Tensor) -> Tensor:
    """Each channel over its own past: `x` `[B, T, d]`, `weight` `[d, 1, reach]`, the current token last."""
    reach, tokens = weight.shape[-1], x.shape[1]
    padded = F.pad(x, (0, 0, reach - 1, 0))
    y = x * weight[:, 0, -1]
    for back in range(1, reach):
        y = y + padded[:, reach - 1 - back : reach - 1 - back + tokens] * weight[:, 0, -1 - back]
    return y


class CausalShifts(torch.autograd.Function):
    """`causal_conv_plainly` with a backward of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        rows = weight[:, 0].t().contiguous()  # [reach, d]
        y = x * rows[-1]
        for back in range(1, min(len(rows), x.shape[1])):
            y[:, back:].addcmul_(x[:, :-back], rows[-1 - back])
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = torch.func.vjp(causal_conv_plainly, x, weight)[1](grads[0])
            return found[0], found[1]
        rows = weight[:, 0].t().contiguous()
        of_x = grads[0] * rows[-1]
        of_rows = [(x * grads[0]).sum((0, 1))]
        for back in range(1, len(rows)):
            if back >= x.shape[1]:
                of_rows.append(torch.zeros_like(of_rows[0]))
                continue
            of_x[:, :-back].addcmul_(grads[0][:, back:], rows[-1 - back])
            of_rows.append((x[:, :-back] * grads[0][:, back:]).sum((0, 1)))
        return of_x, torch.stack(of_rows[::-1], dim=-1).unsqueeze(1)


def unit_vectors(x: Tensor, least: float = 1e-6) -> Tensor:
    """Each vector along the last axis divided by its length; one shorter than `least` by that."""
    if torch.compiler.is_compiling():
        return unit_plainly(x, least)
    y: Tensor = UnitVectors.apply(x, least)[0]  # type: ignore[index]
    return y


def causal_conv(x: Tensor, weight: Tensor) -> Tensor:
    """A depthwise convolution over the current token and those before it, zeros before the first.

    Args:
        x: `[B, T, d]`.
        weight: `[d, 1, reach]`, the current token's last.
    """
    weight = weight.to(x.dtype)
    if torch.compiler.is_compiling():
        return causal_conv_plainly(x, weight)
    y: Tensor = CausalShifts.apply(x, weight)  # type: ignore[assignment]
    return y
