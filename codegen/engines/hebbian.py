"""Hebbian memories with a scalar gate: linear attention, RetNet, Mamba-2's scalar gate.

One gradient step a token on -<W k, v> with retention (Nested Learning, eq. 64; reference engine E1):

    W_t = r_t W_{t-1} + e_t v_t k_t^T

Inside a tile with decay matrix D (see `decay`), W_0 the weights before it and e the rates:

    W_t q_t = D_t0 W_0 q_t + sum_{i <= t} D_ti e_i (k_i . q_t) v_i
    W_C     = D_C0 W_0     + sum_i D_Ci e_i v_i k_i^T

Reads before the own write use row t - 1 of D.  All tiles are computed at once; only W_0 is passed on.

What a token writes does not depend on the weights, so `first_order` is the full gradient.  Under `stop`
e_i, v_i and k_i are constants of these sums; under `through N tokens` so is W_0 where a cut lies before a
tile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.normalised import normalised
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


def hebbian(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    read: str = "after",
    period: int = 1,
    normalise: bool = False,
    gradient: str | tuple[str, int] = "through",
    tile: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Write `rate_t v_t k_t^T`, keep `retain_t` of the old weights, read with the query.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        state: `W [B, H, Dv, Dk]`, with `normalise` also `z [B, H, Dk]`; for a period also the `_start` of
            each, and `phase`, which cuts of the gradient need too.
        start: weights before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros where not given.
        read: `after` or `before` the own write, or `boundary`, the start of the period.
        period: tokens between the points that boundary reads see.
        normalise: divide by z_t . q_t, z_t = r_t z_{t-1} + e_t k_t; a read whose divisor is 0 is not divided.
        gradient: `through` or `first_order`; `stop`, what a token adds is a constant of the outer loss;
            `("through", N)`, the weights go on as values without a past after every N tokens.
        tile: tokens a matrix product spans; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    if gradient == "stop":
        key, value, rate = key.detach(), value.detach(), None if rate is None else rate.detach()
    if normalise:  # the divisor is one more value channel, of ones
        gates: dict[str, Any] = {"rate": rate, "retain": retain, "gradient": gradient}
        return normalised(
            hebbian, query, key, value, state, start, read=read, period=period, tile=tile, **gates
        )
    weights = start_weights(start, key, value) if state is None else state["W"]
    anchor = weights if state is None else state.get("W_start", weights)
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), with_phase({"W": weights}, {"W": anchor}, phase, period, cut_every)

    tiles, opens, ends = marked_tiling(tokens, tile, period if period > 1 else 0, cut_every, phase)
    keys = cut(key, tiles)  # [B, H, N, C, Dk]
    decays = tile_decays(retain, tiles, keys)  # [B, H, N, C + 1, C + 1]
    values = cut(value, tiles) * cut(gate(rate, key), tiles).unsqueeze(-1)
    queries = cut(query, tiles)

    kept = decays[..., -1, :1, None]  # [B, H, N, 1, 1]
    writes = values.transpose(-1, -2) @ (decays[..., -1, 1:, None] * keys)  # [B, H, N, Dv, Dk]
    before = []
    for opening, ending, left, write in zip(opens, ends, kept.unbind(2), writes.unbind(2), strict=True):
        anchor = weights if opening else anchor
        before.append(anchor if read == "boundary" and period > 1 else weights)
        weights = left * weights + write
        weights = weights.detach() if ending else weights
    origin = torch.stack(before, dim=2).transpose(-1, -2)  # what each tile starts from or reads

    phase += tokens
    anchor = weights if phase % period == 0 else anchor
    new = with_phase({"W": weights}, {"W": anchor}, phase, period, cut_every)
    if read == "boundary" and period > 1:
        return joined(queries @ origin, tiles), new
    rows = decays[..., 1:, :] if read == "after" else decays[..., :-1, :]
    scores = (queries @ keys.transpose(-1, -2)) * rows[..., 1:]  # [B, H, N, C, C]
    return joined(rows[..., :1] * (queries @ origin) + scores @ values, tiles), new
