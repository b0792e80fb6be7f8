"""Memories that read the exact solution of a ridge regression over their past.

With weights e_i r_{i+1} ... r_t for the pair i, the matrix that minimises, at token t,

    sum_{i <= t} (e_i r_{i+1} ... r_t) 1/2 |W k_i - v_i|^2 + 1/2 a |W - r_1 ... r_t W_s|^2

(MesaNet; reference c.4), W_s the weights to start from, is

    W_t = V_t (K_t + a I)^{-1},    V_t = r_t V_{t-1} + e_t v_t k_t^T,    V_0 = a W_s
                                   K_t = r_t K_{t-1} + e_t k_t k_t^T,    K_0 = 0

so the memory keeps two sums, which are Hebbian tiles of the values (v, k), and a read is one symmetric
system for each token:  y_t = V_t x_t with (K_t + a I) x_t = q_t.  Inside a tile with the decay matrix D,

    K_t = D_t0 K_0 + sum_{i <= t} D_ti e_i k_i k_i^T

is formed for every token, as the system has to be, and all of them are factored at once (A = L L^T).  The
backward has no matrices of single tokens beside these factors: with u_t = A_t^{-1} dx_t it is that of
-sum_t u_t^T A_t x_t for constant u and x, hence products of U, X and the keys of a tile.
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


class RidgeSolve(torch.autograd.Function):
    """x_t of (D_t0 K_0 + sum_i D_ti e_i k_i k_i^T + a I) x_t = q_t, for all tokens t of all tiles.

    With P_ti = u_t . k_i and R_ti = x_t . k_i:

        dq_t = u_t,    dD_t0 = -u_t . K_0 x_t,    dD_ti = -e_i P_ti R_ti,    de_i = -sum_t D_ti P_ti R_ti
        dK_0 = -sum_t D_t0 u_t x_t^T,    dk_i = -e_i sum_t D_ti (R_ti u_t + P_ti x_t)

    Where the backward is to be differentiated, its own solve is this one.
    """

    @staticmethod
    def forward(
        keys: Tensor, rates: Tensor, rows: Tensor, grams: Tensor, queries: Tensor, strength: float
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(keys.dtype, torch.float32)
        size = keys.shape[-1]
        outer = ((rates.unsqueeze(-1) * keys).unsqueeze(-1) * keys.unsqueeze(-2)).flatten(-2)
        terms = torch.cat((grams.flatten(-2).unsqueeze(-2), outer), dim=-2).to(wide)
        systems = (rows.to(wide) @ terms).unflatten(-1, (size, size))  # [..., C, Dk, Dk]
        systems.diagonal(dim1=-2, dim2=-1).add_(strength)
        factors = torch.linalg.cholesky(systems)
        return _factored_solve(factors, queries), factors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:4], *output)
        ctx.strength = inputs[5]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        keys, rates, rows, grams, solved, factors = ctx.saved_tensors
        if torch.is_grad_enabled():
            turned = ridge_solve(keys, rates, rows, grams, grads[0], ctx.strength)
        else:
            turned = _factored_solve(factors, grads[0])
        seen, answered = turned @ keys.transpose(-1, -2), solved @ keys.transpose(-1, -2)  # P, R
        began, decays = rows[..., :1], rows[..., 1:]
        both = seen * answered
        weighted = -decays * rates.unsqueeze(-2)
        to_keys = (weighted * answered).transpose(-1, -2) @ turned + (weighted * seen).transpose(
            -1, -2
        ) @ solved
        to_began = -(turned * (solved @ grams.transpose(-1, -2))).sum(-1, keepdim=True)
        to_rows = torch.cat((to_began, -rates.unsqueeze(-2) * both), dim=-1)
        to_grams = -(began * turned).transpose(-1, -2) @ solved
        return to_keys, -(decays * both).sum(-2), to_rows, to_grams, turned, None


def _factored_solve(factors: Tensor, right: Tensor) -> Tensor:
    """Solve L L^T x = b for each token, b `[..., C, Dk]`."""
    half = torch.linalg.solve_triangular(factors, right.to(factors.dtype).unsqueeze(-1), upper=False)
    whole = torch.linalg.solve_triangular(factors.transpose(-1, -2), half, upper=True)
    return whole.squeeze(-1).to(right.dtype)


def ridge_solve(
    keys: Tensor, rates: Tensor, rows: Tensor, grams: Tensor, queries: Tensor, strength: float
) -> Tensor:
    """What each query is in the eyes of the keys before it, `[..., C, Dk]`.

    Args:
        keys: `[..., C, Dk]`.
        rates: e, `[..., C]`.
        rows: of the decay matrix, one for each query, `[..., C, C + 1]`.
        grams: K_0, `[..., Dk, Dk]`.
        queries: `[..., C, Dk]`.
        strength: a.
    """
    solved: Tensor = RidgeSolve.apply(keys, rates, rows, grams, queries, strength)[0]  # type: ignore[index]
    return solved


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
    tile: int = 32,
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
    rates = cut(rates, tiles)
    weighted = rates.unsqueeze(-1) * torch.cat((cut(value, tiles), keys), dim=-1)
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
    if read == "boundary" and period > 1:  # one system a tile
        wide = torch.promote_types(grams.dtype, torch.float32)
        bounded = grams.to(wide) + strength * torch.eye(key.shape[-1], dtype=wide, device=key.device)
        factor = torch.linalg.cholesky(bounded)
        solved = torch.cholesky_solve(queries.to(wide).transpose(-1, -2), factor).to(queries.dtype)
        return joined((pairs @ solved).transpose(-1, -2), tiles), new
    rows = decays[..., 1:, :] if read == "after" else decays[..., :-1, :]
    solved = ridge_solve(keys, rates, rows, grams, queries, strength)
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
