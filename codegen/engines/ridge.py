"""Memories that read the exact solution of a ridge regression over their past.

With weights e_i r_{i+1} ... r_t for the pair i, the matrix that minimises, at token t,

    sum_{i <= t} (e_i r_{i+1} ... r_t) 1/2 |W k_i - v_i|^2 + 1/2 a |W - r_1 ... r_t W_s|^2

(MesaNet; reference c.4), W_s the weights to start from, is

    W_t = V_t (K_t + a I)^{-1},    V_t = r_t V_{t-1} + e_t v_t k_t^T,    V_0 = a W_s
                                   K_t = r_t K_{t-1} + e_t k_t k_t^T,    K_0 = 0

so the memory keeps two sums, which are Hebbian tiles of the values (v, k), and a read is one symmetric
system for each token:  y_t = V_t x_t with (K_t + a I) x_t = q_t.  Inside a tile with the decay matrix D,

    K_t = D_t0 K_0 + sum_{i <= t} D_ti e_i k_i k_i^T

is formed for every token, as the system has to be; all of them are factored at once.  The rest is products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.tiles import (
    cut,
    gate,
    joined,
    marked_tiling,
    opened_at,
    start_weights,
    tile_decays,
    tokens_between_cuts,
    with_phase,
)


class SymmetricSolve(torch.autograd.Function):
    """X = A^{-1} B for symmetric positive definite A by its Cholesky factor, which the backward reuses.

    dB = A^{-1} dX  and  dA = -dB X^T.  Where the backward is to be differentiated, its solve is this one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(matrix.dtype, torch.float32)
        factor = torch.linalg.cholesky(matrix.to(wide))
        return torch.cholesky_solve(right.to(wide), factor).to(right.dtype), factor

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        matrix, solution, factor = ctx.saved_tensors
        if torch.is_grad_enabled():
            grad_right = symmetric_solve(matrix, grads[0])
        else:
            grad_right = torch.cholesky_solve(grads[0].to(factor.dtype), factor).to(grads[0].dtype)
        return -grad_right @ solution.transpose(-1, -2), grad_right


def symmetric_solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve A X = B for symmetric positive definite A `[..., n, n]` and B `[..., n, R]`."""
    solution: Tensor = SymmetricSolve.apply(matrix, right)[0]  # type: ignore[index]
    return solution


def ridge(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    strength: float,
    read: str = "after",
    period: int = 1,
    gradient: str | tuple[str, int] = "through",
    tile: int = 16,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum up weighted pairs, and read the query through the solution of their ridge regression.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, at least 0; 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        state: `W` `[B, H, Dv, Dk]`, the sum V of values and keys, and `K` `[B, H, Dk, Dk]`, that of keys; for
            a period above 1 also the `_start` of each, and `phase`, the tokens seen of the open period (and
            since the last cut, if the gradient is cut).
        start: the weights that are read before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros
            where not given.
        strength: a, above 0.
        read: `after` or `before` the own pair, or `boundary`, the start of the period.
        period: tokens between the points that boundary reads see.
        gradient: as in `token_loop`; there is no inner gradient, so `first_order` is `through`.
        tile: tokens that are worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    dim_v, tokens = value.shape[-1], key.shape[2]
    if state is None:
        weights = strength * start_weights(start, key, value)
        sums = torch.cat((weights, weights.new_zeros(*key.shape[:2], key.shape[-1], key.shape[-1])), dim=-2)
    else:
        sums = torch.cat((state["W"], state["K"]), dim=-2)
    anchor = sums
    if state is not None and "W_start" in state:
        anchor = torch.cat((state["W_start"], state["K_start"]), dim=-2)
    phase, cut_every = opened_at(state), tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), _ridge_state(sums, anchor, dim_v, phase, period, cut_every)

    tiles, opens, ends = marked_tiling(tokens, tile, period if period > 1 else 0, cut_every, phase)
    rates = gate(rate, key)
    if gradient == "stop":
        key, value, rates = key.detach(), value.detach(), rates.detach()
    queries, keys = cut(query, tiles), cut(key, tiles)
    weighted = cut(rates, tiles).unsqueeze(-1) * torch.cat((cut(value, tiles), keys), dim=-1)
    decays = tile_decays(retain, tiles, keys)
    kept = decays[..., -1, :1, None]
    writes = weighted.transpose(-1, -2) @ (decays[..., -1, 1:, None] * keys)  # [B, H, N, Dv + Dk, Dk]
    before = []
    for n, (left, write) in enumerate(zip(kept.unbind(2), writes.unbind(2), strict=True)):
        anchor = sums if opens[n] else anchor
        before.append(anchor if read == "boundary" and period > 1 else sums)
        sums = left * sums + write
        sums = sums.detach() if ends[n] else sums
    pairs, grams = torch.stack(before, dim=2).split((dim_v, key.shape[-1]), dim=-2)

    phase += tokens
    new = _ridge_state(sums, sums if phase % period == 0 else anchor, dim_v, phase, period, cut_every)
    bounded = strength * torch.eye(key.shape[-1], dtype=key.dtype, device=key.device)
    if read == "boundary" and period > 1:
        solved = symmetric_solve(grams + bounded, queries.transpose(-1, -2))
        return joined((pairs @ solved).transpose(-1, -2), tiles), new
    rows = decays[..., 1:, :] if read == "after" else decays[..., :-1, :]
    products = weighted[..., dim_v:].unsqueeze(-1) * keys.unsqueeze(-2)  # e_i k_i k_i^T
    each = (rows[..., 1:] @ products.flatten(-2)).unflatten(-1, products.shape[-2:])
    each = each + rows[..., :1, None] * grams.unsqueeze(-3) + bounded  # [B, H, N, C, Dk, Dk]
    solved = symmetric_solve(each, queries.unsqueeze(-1)).squeeze(-1)
    scores = (solved @ keys.transpose(-1, -2)) * rows[..., 1:]
    result = rows[..., :1] * (solved @ pairs.transpose(-1, -2)) + scores @ weighted[..., :dim_v]
    return joined(result, tiles), new


def _ridge_state(
    sums: Tensor, anchor: Tensor, dim_v: int, phase: int, period: int, cut_every: int
) -> dict[str, Tensor]:
    """The state after the last token."""
    split = {"W": sums[..., :dim_v, :], "K": sums[..., dim_v:, :]}
    anchors = {"W": anchor[..., :dim_v, :], "K": anchor[..., dim_v:, :]}
    return with_phase(split, anchors, phase, period, cut_every)
