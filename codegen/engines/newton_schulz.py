"""Matrices pushed towards orthogonal ones by Newton-Schulz, with a backward in closed form.

Muon's quintic, from X_0 = X / |X| (Nested Learning, Eq. 42-44):

    A = X_i X_i^T,  X_{i+1} = (a I + b A + c A^2) X_i

With R = sqrt(c) A + b / (2 sqrt(c)) I the polynomial is P = R^2 + (a - b^2 / 4c) I, so that a round is
three products and nothing more.  All of it is symmetric: with Y the gradient of X_{i+1} and D = Y X_i^T
the backward needs four products where autograd takes six,

    G = D + D^T,  dX_i = P Y + sqrt(c) (G R + R G) X_i

Where the backward is to be differentiated in its turn, or a compiler fuses the steps by itself, the plain
form is used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.erasing import closed_form_fits

QUINTIC = (3.4445, -4.7750, 2.0315)
LEAST_NORM = 1e-7


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of `[..., m, n]` near 1."""
    a, b, c = QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.transpose(-1, -2) if tall else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + LEAST_NORM)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(-1, -2) if tall else x


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """`newton_schulz` of `[..., m, n]`, faster on many small matrices."""
    if torch.compiler.is_compiling() or matrix.numel() == 0 or not closed_form_fits(matrix):
        return newton_schulz(matrix, steps)
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.transpose(-1, -2) if tall else matrix
    turned: Tensor = NewtonSchulz.apply(x.reshape(-1, *x.shape[-2:]), steps)[0]  # type: ignore[index]
    turned = turned.reshape(x.shape)
    return turned.transpose(-1, -2) if tall else turned


class NewtonSchulz(torch.autograd.Function):
    """`newton_schulz` of wide matrices `[N, m, n]`; also gives X, R and P of each round."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, steps: int) -> tuple[Tensor, ...]:
        norm = torch.linalg.matrix_norm(matrix, keepdim=True)
        x, kept = matrix / (norm + LEAST_NORM), [norm]
        for _ in range(steps):
            root, poly = _round_of(x)
            kept += [x, root, poly]
            x = torch.bmm(poly, x)
        return (x, *kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, ...]) -> None:
        ctx.steps = inputs[1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        matrix, norm, *rounds = ctx.saved_tensors
        of_x = grads[0]
        if of_x is None:
            return None, None
        if torch.is_grad_enabled():
            return torch.func.vjp(lambda m: newton_schulz(m, ctx.steps), matrix)[1](of_x)[0], None
        for n in reversed(range(ctx.steps)):
            x, root, poly = rounds[3 * n : 3 * n + 3]
            of_poly = torch.bmm(of_x, x.transpose(1, 2))
            of_root = torch.bmm(of_poly + of_poly.transpose(1, 2), root)
            of_gram = of_root + of_root.transpose(1, 2)
            of_x = torch.bmm(poly, of_x).baddbmm_(of_gram, x, alpha=math.sqrt(QUINTIC[2]))
        divisor = norm + LEAST_NORM
        along = (of_x * matrix).sum((1, 2), keepdim=True) / (norm.clamp(min=LEAST_NORM**2) * divisor)
        return (of_x - matrix * along) / divisor, None


def _round_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """R and P of one round, `[N, m, m]`."""
    a, b, c = QUINTIC
    root = torch.bmm(x, x.transpose(1, 2)).mul_(math.sqrt(c))
    root.diagonal(dim1=1, dim2=2).add_(b / (2 * math.sqrt(c)))
    poly = torch.bmm(root, root)
    poly.diagonal(dim1=1, dim2=2).add_(a - b * b / (4 * c))
    return root, poly
