"""Delta rules on a matrix by one unit lower-triangular solve a tile.

Two transitions share the algebra (Nested Learning, eqs. 65 and 92-93; reference engines E3 and E10):

    retained (E3)    W_t = r_t W_{t-1} (I - e_t k_t k_t^T) + e_t c_t k_t^T
    current  (E10)   W_t = W_{t-1} (r_t I - e_t k_t k_t^T) + e_t c_t k_t^T

The first is a step on 1/2 |W k - v|^2 from r_t W_{t-1}, the second from W_{t-1}, which is also delta
gradient descent on the dot product; c is v.  Both write u_t k_t^T with u_t = e_t (c_t - x_t), x_t what the
erased weights return for k_t.  Inside a tile with decay matrix D (see `decay`) and W_0 the weights before
it, x_t = D_s0 W_0 k_t + sum_{i < t} D_si (k_i . k_t) u_i with row s = t when retained and s = t - 1 when
current, hence a unit lower-triangular system in U.  Then

    W_t q_t = D_t0 W_0 q_t + sum_{i <= t} D_ti (k_i . q_t) u_i,     W_C = D_C0 W_0 + sum_i D_Ci u_i k_i^T

`erasing` runs such tiles, and their backward, in closed form.  Where W_0 has to be kept from gradients, the
solve, in which U is affine in W_0, is done for all tiles at once; a tile's transition is one matrix
product. Delta gradient descent on the squared error with the gradient frozen at the start W_b of a period
has c_t = v_t - W_b k_t.

With less of the outer gradient the solve is made without one, and its U and W_0 are constants.  Under
`stop` the writes u_t k_t^T are then read as Hebbian ones.  Under `first_order` the weights inside the
gradient are constants, so x_t is once more read with the live key, and u_t = e_t (v_t - x_t), in Hebbian
writes; delta gradient descent erases outside of its gradient, so that there only W_b stands still.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.codegen.engines.decay import decay_matrix
from nldsl.codegen.engines.erasing import erasing_solved, erasing_tiles
from nldsl.codegen.engines.hebbian import hebbian
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
from nldsl.codegen.engines.triangular import unit_lower_solve


def delta(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    erase: str = "retained",
    read: str = "after",
    gradient: str | tuple[str, int] = "through",
    tile: int = 32,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The gated delta rule: erase what the memory returns for the key, write the value.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`; a write multiplies what was stored along it by `retain (1 - rate |k|^2)`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        state: `{"W": [B, H, Dv, Dk]}`, and `phase` where the gradient is cut.
        start: weights before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros where not given.
        erase: `retained` (DeltaNet, Gated DeltaNet) or `current` (delta gradient descent with the dot
            product).
        read: `after` or `before` the own write.
        gradient: `through`; `first_order`, the weights inside the squared error's gradient are constants of
            the outer loss (for the dot product, which has none, say `through`); `stop`, all that a token adds
            is; `("through", N)`, the weights go on as values without a past after every N tokens.
        tile: tokens a solve spans; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    weights = start_weights(start, key, value) if state is None else state["W"]
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), with_phase({"W": weights}, {}, phase, 1, cut_every)
    tiles, _, ends = marked_tiling(tokens, tile, 0, cut_every, phase)
    rates = gate(rate, key)
    if gradient == "through":
        keys = cut(key, tiles)
        given = (
            cut(query, tiles),
            keys,
            cut(value, tiles),
            cut(rates, tiles),
            tile_decays(retain, tiles, keys),
        )
        read_tiles, weights = erasing_tiles(
            *given, weights, retained=erase == "retained", after=read == "after"
        )
        return joined(read_tiles, tiles), {"W": weights}
    if gradient in ("first_order", "stop"):  # what the solve finds is a constant
        gone = None if retain is None else retain.detach()
        solving = (key.detach(), value.detach(), rates.detach(), gone, weights.detach())
    else:
        solving = (key, value, rates, retain, weights)
    keys, decays, updates, origin, weights = _delta_tiles(*solving, erase=erase, tiles=tiles, ends=ends)
    if gradient == "stop":
        added = joined(updates, tiles)
        return hebbian(query, key.detach(), added, None, retain, state, start=start, read=read, tile=tile)
    if gradient == "first_order":
        rows = _delta_erased(decays, erase).tril()
        added = rates.unsqueeze(-1) * (
            value - joined(_delta_read(cut(key, tiles), keys, updates, origin, rows), tiles)
        )
        return hebbian(query, key, added, None, retain, state, start=start, read=read, tile=tile)
    rows = decays[..., 1:, :] if read == "after" else decays[..., :-1, :]
    new = with_phase({"W": weights}, {}, phase + tokens, 1, cut_every)
    return joined(_delta_read(cut(query, tiles), keys, updates, origin, rows), tiles), new


def _delta_tiles(
    key: Tensor,
    value: Tensor,
    rate: Tensor,
    retain: Tensor | None,
    weights: Tensor,
    *,
    erase: str,
    tiles: tuple[int, int, int],
    ends: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All tiles of `delta` without reads.

    Returns:
        Keys `[B, H, N, C, Dk]`, decay matrices, U `[B, H, N, C, Dv]`, W_0 transposed `[B, H, N, Dk, Dv]`, and
        the weights after the last token.
    """
    keys = cut(key, tiles)
    decays = tile_decays(retain, tiles, keys)  # [B, H, N, C + 1, C + 1]
    written, answered = erasing_solved(
        keys, cut(value, tiles), cut(rate, tiles), _delta_erased(decays, erase)
    )
    tails = decays[..., -1, 1:, None] * keys
    writes = written.transpose(-1, -2) @ tails  # [B, H, N, Dv, Dk]
    turns = _delta_kept(decays, keys) - answered.transpose(-1, -2) @ tails  # [B, H, N, Dk, Dk]
    origins = []
    for turn, write, ending in zip(turns.unbind(2), writes.unbind(2), ends, strict=True):
        origins.append(weights)
        weights = write + weights @ turn
        weights = weights.detach() if ending else weights
    origin = torch.stack(origins, dim=2).transpose(-1, -2)
    return keys, decays, written - answered @ origin, origin, weights


def _delta_erased(decays: Tensor, erase: str) -> Tensor:
    """The rows of the decay matrix that an erasure sees, `[..., C, C + 1]`."""
    return decays[..., 1:, :] if erase == "retained" else decays[..., :-1, :]


def delta_frozen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    period: int,
    objective: str = "l2",
    read: str = "boundary",
    gradient: str | tuple[str, int] = "through",
    tile: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Delta gradient descent on a matrix, gradients frozen at the start of a period, erasures running.

        W_t = W_{t-1} (r_t I - e_t k_t k_t^T) - e_t (W_b k_t - v_t) k_t^T

    Args and results as `delta`, besides:
        state: `W`, `W_start` `[B, H, Dv, Dk]` and `phase`, the tokens seen of the open period (and since the
            last cut, if the gradient is cut).
        period: tokens a gradient's weights W_b stand still.
        objective: `l2` as above, or `dot`, which has no W_b term, so that only boundary reads depend on the
            period.
        read: `after` or `before` the own write, or `boundary`, W_b.
        gradient: as `delta`; under `first_order` W_b is a constant in the gradient, the erasure is not.
    """
    weights = start_weights(start, key, value) if state is None else state["W"]
    anchor = weights if state is None else state.get("W_start", weights)
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), with_phase({"W": weights}, {"W": anchor}, phase, period, cut_every)
    tiles, opens, ends = marked_tiling(tokens, tile, period, cut_every, phase)
    frozen = objective == "l2"
    forgotten = retain
    if gradient == "stop":  # what the solve finds is a constant
        key, value, weights, anchor = key.detach(), value.detach(), weights.detach(), anchor.detach()
        rate = None if rate is None else rate.detach()
        forgotten = None if retain is None else retain.detach()
    keys, values = cut(key, tiles), cut(value, tiles)
    decays = tile_decays(forgotten, tiles, keys)
    targets = torch.cat((values, keys), dim=-1) if frozen else values
    solved, answered = erasing_solved(keys, targets, cut(gate(rate, key), tiles), decays[..., :-1, :])
    written, surprised = solved.split((value.shape[-1], solved.shape[-1] - value.shape[-1]), dim=-1)
    tails = decays[..., -1, 1:, None] * keys
    writes = (written.transpose(-1, -2) @ tails).unbind(2)
    turns = (_delta_kept(decays, keys) - answered.transpose(-1, -2) @ tails).unbind(2)
    pulls = (surprised.transpose(-1, -2) @ tails).unbind(2) if frozen else ()
    origins, anchors = [], []
    for n, (opening, ending) in enumerate(zip(opens, ends, strict=True)):
        anchor = weights if opening else anchor
        origins.append(weights)
        anchors.append(anchor)
        weights = writes[n] + weights @ turns[n]
        if frozen:
            weights = weights - (anchor.detach() if gradient == "first_order" else anchor) @ pulls[n]
        weights = weights.detach() if ending else weights
    origin = torch.stack(origins, dim=2).transpose(-1, -2)
    fixed = torch.stack(anchors, dim=2).transpose(-1, -2)

    phase += tokens
    anchor = weights if phase % period == 0 else anchor
    new = with_phase({"W": weights}, {"W": anchor}, phase, period, cut_every)
    if read == "boundary" and gradient != "stop":
        return joined(cut(query, tiles) @ fixed, tiles), new
    updates = written - answered @ origin
    if frozen:
        updates = updates - surprised @ (fixed.detach() if gradient == "first_order" else fixed)
    if gradient == "stop":
        added = joined(updates, tiles)
        return hebbian(
            query, key, added, None, retain, state, start=start, read=read, period=period, tile=tile
        )
    rows = decays[..., 1:, :] if read == "after" else decays[..., :-1, :]
    return joined(_delta_read(cut(query, tiles), keys, updates, origin, rows), tiles), new


def delta_fold(
    running: Tensor,
    anchor: Tensor,
    key: Tensor,
    target: Tensor,
    rate: Tensor,
    retain: Tensor,
    *,
    objective: str = "l2",
) -> Tensor:
    """Write one piece of a period by delta gradient descent, without reads.  Leading dims broadcast.

    Args:
        running: weights before the piece, `[..., Dv, Dk]`.
        anchor: weights at which gradients are taken, same shape.
        key: `[..., T, Dk]`.
        target: `[..., T, Dv]`, a constant of the objective.
        rate: `[..., T]`.
        retain: `[..., T]`.
        objective: `l2` or `dot`.

    Returns:
        The weights after the piece, `[..., Dv, Dk]`.
    """
    decays = decay_matrix(retain)
    error = target if objective == "dot" else target - key @ anchor.transpose(-1, -2)
    updates = erasing_updates(running, key, error, rate, decays)
    return decays[..., -1, :1, None] * running + updates.transpose(-1, -2) @ (decays[..., -1, 1:, None] * key)


def erasing_updates(running: Tensor, key: Tensor, target: Tensor, rate: Tensor, decays: Tensor) -> Tensor:
    """The rows u_t = e_t (c_t - W_{t-1} k_t) of delta gradient descent, W_t = r_t W_{t-1} + u_t k_t^T.

    Args:
        running: W_0, `[..., Dv, Dk]`.
        key: `[..., C, Dk]`.
        target: c, `[..., C, Dv]`.
        rate: `[..., C]`.
        decays: decay matrix of the retention, `[..., C + 1, C + 1]`.
    """
    before = decays[..., :-1, :]
    system = rate.unsqueeze(-1) * (key @ key.transpose(-1, -2)) * before[..., 1:]
    return unit_lower_solve(
        system, rate.unsqueeze(-1) * (target - before[..., :1] * (key @ running.transpose(-1, -2)))
    )


def _delta_read(queries: Tensor, keys: Tensor, updates: Tensor, origin: Tensor, rows: Tensor) -> Tensor:
    """What the weights of each token of a tile return: `[..., C, Dv]`.

    Args:
        queries: `[..., C, Dk]`.
        keys: `[..., C, Dk]`.
        updates: U, `[..., C, Dv]`.
        origin: W_0 transposed, `[..., Dk, Dv]`.
        rows: of the decay matrix, `[..., C, C + 1]`: what is left of W_0 and of every write at a read.
    """
    scores = (queries @ keys.transpose(-1, -2)) * rows[..., 1:]
    return rows[..., :1] * (queries @ origin) + scores @ updates


def _delta_kept(decays: Tensor, keys: Tensor) -> Tensor:
    """What a tile keeps of the weights where no key erases, `[..., Dk, Dk]`."""
    return decays[..., -1, :1, None] * torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
