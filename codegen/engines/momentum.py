"""Matrix memories with momentum and with running gradients: one triangular solve a tile.

For a matrix W with retention r, rate e and momentum b (Titans; Nested Learning, eqs. 54-57;
reference engines E9 and E11), z_t = W_{t-1} k_t what the running weights answer to the key:

    d_t = s_t z_t - c_t                              the error whose outer product with k_t is the gradient
    S_t = b_t S_{t-1} - e_t d_t k_t^T
    W_t = r_t W_{t-1} + S_t (- e_t z_t k_t^T)        in brackets: the erasure of delta gradient descent

with, for the squared error, s = r and c = v (anchor retained), s = 1 and c = v (current), or s = 0 and
c = v - W_b k (frozen at the start W_b of a period), and s = 0, c = v for the dot product.  In a tile with
the decay matrices D of r and B of b (see `decay`), M = D B without its column of the boundary,
G_ti = M_ti e_i and A_ti = G_ti s_i (+ D_ti e_i),

    W_t = D_t0 W_0 + M_t0 S_0 - sum_{i <= t} (A_ti z_i - G_ti c_i) k_i^T
    (I + A- * K K^T) Z = D-_0 K W_0^T + M-_0 K S_0^T + (G- * K K^T) C

where - shifts rows down by one, so that the system is unit lower-triangular.  Z is affine in W_0 and S_0:
one solve serves all tiles, and a tile moves [W; S] by one matrix product.  Where neither s nor the erasure
is there, d is known and nothing is solved.  Without momentum M is D.

Oja's rule (Nested Learning, eqs. 66-67) writes e_t v_t (k_t - W_{t-1}^T v_t)^T, a step of the squared
error of W^T with key v and value k: the same tiles are made of the transpose, with the errors
d_t = s_t W_{t-1}^T v_t - k_t, and only the read differs:

    W_t q_t = D_t0 W_0 q_t + M_t0 S_0 q_t - sum_{i <= t} G_ti (d_i . q_t) v_i
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.codegen.engines.decay import decay_matrix, momentum_matrix
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


class MovingTiles(NamedTuple):
    """What the writes of all tiles are made of, each `[B, H, N, ...]`, C tokens a tile."""

    keys: Tensor  # [C, Dk]
    targets: Tensor  # v, [C, Dv]
    rates: Tensor  # [C]
    decays: Tensor  # D, [C + 1, C + 1]
    pushes: Tensor | None  # B, the same shape; none without momentum
    moves: Tensor | None  # 0 for padding, which must not move the weights again, else 1, [C]; as B
    reach: Tensor  # M, [C + 1, C + 1]; D where there is no momentum
    share: Tensor | None  # s, [C]; none where the error does not see the running weights
    erase: bool
    held: bool  # whether c is v - W_b k


class MovingTrace(NamedTuple):
    """What happened in all tiles."""

    origin: Tensor  # [W_0^T; S_0^T] of each tile, [B, H, N, Dk or 2 Dk, Dv]
    anchors: tuple[Tensor, ...]  # W_b^T of each tile, N of [B, H, Dk, Dv]
    errors: Tensor  # d, [B, H, N, C, Dv]
    erased: Tensor | None  # z, the same shape, where there is an erasure
    last: Tensor  # [W^T; S^T] after the last tile
    anchor: Tensor  # W_b^T of the last tile


def heavy_ball(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    objective: str = "l2",
    erase: bool = False,
    anchor: str = "retained",
    period: int = 1,
    read: str = "after",
    gradient: str | tuple[str, int] = "through",
    tile: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient steps on a matrix with momentum, with or without the erasure of delta gradient descent.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        momentum: `[B, H, T]` in [0, 1]; no momentum where not given.
        state: `W` and, with momentum, `S`, `[B, H, Dv, Dk]`; for a period above 1 also `W_start`, and
            `phase`, the tokens seen of the open period (and since the last cut, if the gradient is cut).
        start: weights before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros where not given.
        objective: `l2`, 1/2 |W k - v|^2; `dot`, -<W k, v>; or `oja`, -<W k, v> + 1/2 |W^T v|^2.
        erase: delta gradient descent, of `l2` or `dot`.
        anchor: where the gradient is taken: `retained`, at r_t W_{t-1}; `current`, at W_{t-1};
            `frozen`, at the start of the period.
        period: tokens between the points that a frozen gradient and boundary reads see.
        read: `after` or `before` the own write, or `boundary`, the start of the period.
        gradient: as in `token_loop`.
        tile: tokens a solve spans; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    moving, turned = form = (momentum is not None, objective == "oja")
    stack, anchored = _moving_start(start, state, key, value, moving, turned)
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), _moving_state(stack, anchored, form, phase, period, cut_every)

    tiles, opens, ends = marked_tiling(tokens, tile, period if period > 1 else 0, cut_every, phase)
    queries = cut(query, tiles)
    at = "current" if anchor == "frozen" and period == 1 else anchor  # a period of one token moves with it
    parts = _moving_tiles(tiles, key, value, rate, retain, momentum, objective, erase, at)
    if gradient == "stop":
        parts, trace = _stopped(parts, stack, anchored, opens, ends)
    elif gradient == "first_order":
        parts, trace = _first_order(parts, stack, anchored, opens, ends)
    else:
        trace = _moved(parts, stack, anchored, opens, ends)

    phase += tokens
    anchored = trace.last[..., : anchored.shape[-2], :] if phase % period == 0 else trace.anchor
    new = _moving_state(trace.last, anchored, form, phase, period, cut_every)
    if read == "boundary" and period > 1:
        begun = torch.stack(trace.anchors, dim=2)
        return joined(queries @ (begun.transpose(-1, -2) if turned else begun), tiles), new
    reading = _turned_read if turned else _moving_read
    return joined(
        reading(parts, trace, queries, slice(1, None) if read == "after" else slice(-1)), tiles
    ), new


def _moving_start(
    start: Tensor | None,
    state: dict[str, Tensor] | None,
    key: Tensor,
    value: Tensor,
    moving: bool,
    turned: bool,
) -> tuple[Tensor, Tensor]:
    """[W^T; S^T] before the first token, and W_b^T of the open period; of W^T itself where that is turned."""
    weights = start_weights(start, key, value) if state is None else state["W"]
    anchor = weights if state is None else state.get("W_start", weights)
    stack = (weights,)
    if moving:
        stack = (weights, torch.zeros_like(weights) if state is None else state["S"])
    if not turned:
        stack, anchor = tuple(x.transpose(-1, -2) for x in stack), anchor.transpose(-1, -2)
    return torch.cat(stack, dim=-2), anchor


def _moving_state(
    stack: Tensor, anchor: Tensor, form: tuple[bool, bool], phase: int, period: int, cut_every: int
) -> dict[str, Tensor]:
    """The state, of a memory with momentum or without, turned or not."""
    moving, turned = form
    rows = anchor.shape[-2]
    state = {"W": stack[..., :rows, :], "W_start": anchor}
    if moving:
        state["S"] = stack[..., rows:, :]
    if not turned:
        state = {name: x.transpose(-1, -2) for name, x in state.items()}
    anchor = state.pop("W_start")
    return with_phase(state, {"W": anchor}, phase, period, cut_every)


def _moving_tiles(
    tiles: tuple[int, int, int],
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    retain: Tensor | None,
    momentum: Tensor | None,
    objective: str,
    erase: bool,
    anchor: str,
) -> MovingTiles:
    if objective == "oja":
        key, value = value, key
    keys = cut(key, tiles)
    decays = tile_decays(retain, tiles, keys)
    pushes = None if momentum is None else decay_matrix(cut(momentum, tiles, 1.0))
    moves = None if momentum is None else cut(torch.ones_like(key[..., 0]), tiles)
    share = None
    if objective != "dot" and anchor != "frozen":
        if anchor == "retained" and retain is not None:
            share = cut(retain, tiles, 1.0)
        else:
            share = keys.new_ones(keys.shape[:-1])
    return MovingTiles(
        keys,
        cut(value, tiles),
        cut(gate(rate, key), tiles),
        decays,
        pushes,
        moves,
        _reached(decays, pushes, moves),
        share,
        erase,
        objective != "dot" and anchor == "frozen",
    )


def _reached(decays: Tensor, pushes: Tensor | None, moves: Tensor | None) -> Tensor:
    return decays if pushes is None or moves is None else momentum_matrix(decays, pushes, moves)


def _moved(
    parts: MovingTiles,
    stack: Tensor,
    anchor: Tensor,
    opens: list[bool],
    ends: list[bool],
    *,
    first_order: bool = False,
) -> MovingTrace:
    """Run the recurrence; under `first_order` the frozen weights inside the gradient are constants."""
    if parts.share is None and not parts.erase and not parts.held:
        return _written(parts, -parts.targets, None, stack, anchor, opens, ends)
    if parts.share is not None and not parts.erase:
        return _descended(parts, parts.share, stack, anchor, opens, ends)
    keys, dim_k, dim_v = parts.keys, parts.keys.shape[-1], parts.targets.shape[-1]
    taken = parts.reach[..., 1:] * parts.rates.unsqueeze(-2)  # G, [B, H, N, C + 1, C]
    answered = _answered(parts, taken)  # A, the same shape
    gram = keys @ keys.transpose(-1, -2)
    known = torch.cat((parts.targets, keys), dim=-1) if parts.held else parts.targets
    right = torch.cat(((gram * taken[..., :-1, :]) @ known, _opening(parts, keys, slice(-1))), dim=-1)
    solved = unit_lower_solve(gram * answered[..., :-1, :], right)
    given, surprised, opened = solved.split(
        (dim_v, known.shape[-1] - dim_v, right.shape[-1] - known.shape[-1]), -1
    )

    z_tails = answered[..., -1, :, None] * keys
    c_tails = taken[..., -1, :, None] * keys
    if parts.pushes is not None:
        pushed = (parts.pushes[..., -1, 1:] * parts.rates)[..., None] * keys
        seen = torch.zeros_like(pushed) if parts.share is None else parts.share[..., None] * pushed
        z_tails, c_tails = torch.cat((z_tails, seen), dim=-1), torch.cat((c_tails, pushed), dim=-1)
    z_tails, c_tails = z_tails.transpose(-1, -2), c_tails.transpose(-1, -2)  # [B, H, N, P Dk, C]
    writes = (c_tails @ parts.targets - z_tails @ given).unbind(2)
    turns = (_standing(parts) - z_tails @ opened).unbind(2)
    pulls = (c_tails @ keys - z_tails @ surprised).unbind(2) if parts.held else ()
    origins, anchors = [], []
    for n, opening in enumerate(opens):
        anchor = stack[..., :dim_k, :] if opening else anchor
        origins.append(stack)
        anchors.append(anchor)
        stack = writes[n] + turns[n] @ stack
        if parts.held:
            stack = stack - pulls[n] @ (anchor.detach() if first_order else anchor)
        stack = stack.detach() if ends[n] else stack
    origin = torch.stack(origins, dim=2)
    z = given + opened @ origin
    errors = -parts.targets
    if parts.held:
        fixed = torch.stack(anchors, dim=2)
        at = fixed.detach() if first_order else fixed
        z, errors = z - surprised @ at, errors + keys @ at
    if parts.share is not None:
        errors = errors + parts.share.unsqueeze(-1) * z
    return MovingTrace(origin, tuple(anchors), errors, z if parts.erase else None, stack, anchor)


def _descended(
    parts: MovingTiles, share: Tensor, stack: Tensor, anchor: Tensor, opens: list[bool], ends: list[bool]
) -> MovingTrace:
    """The recurrence without erasure, solved for the errors themselves: (I + s G- * K K^T) E = s Z_0 - C."""
    keys, dim_k, dim_v = parts.keys, parts.keys.shape[-1], parts.targets.shape[-1]
    taken = parts.reach[..., 1:] * parts.rates.unsqueeze(-2)
    seen = share.unsqueeze(-1)
    right = torch.cat((-parts.targets, seen * _opening(parts, keys, slice(-1))), dim=-1)
    solved = unit_lower_solve(seen * (keys @ keys.transpose(-1, -2)) * taken[..., :-1, :], right)
    given, opened = solved.split((dim_v, right.shape[-1] - dim_v), dim=-1)
    tails = taken[..., -1, :, None] * keys
    if parts.pushes is not None:
        tails = torch.cat((tails, (parts.pushes[..., -1, 1:] * parts.rates)[..., None] * keys), dim=-1)
    moved = tails.transpose(-1, -2) @ solved  # [B, H, N, P Dk, Dv + P Dk]
    writes, turns = moved[..., :dim_v].unbind(2), (_standing(parts) - moved[..., dim_v:]).unbind(2)
    origins, anchors = [], []
    for n, opening in enumerate(opens):
        anchor = stack[..., :dim_k, :] if opening else anchor
        origins.append(stack)
        anchors.append(anchor)
        stack = turns[n] @ stack - writes[n]
        stack = stack.detach() if ends[n] else stack
    origin = torch.stack(origins, dim=2)
    return MovingTrace(origin, tuple(anchors), given + opened @ origin, None, stack, anchor)


def _written(
    parts: MovingTiles,
    errors: Tensor,
    erased: Tensor | None,
    stack: Tensor,
    anchor: Tensor,
    opens: list[bool],
    ends: list[bool],
) -> MovingTrace:
    """The recurrence where all errors and all that is erased are known."""
    keys, dim_k = parts.keys, parts.keys.shape[-1]
    rates = parts.rates.unsqueeze(-1)
    lost = parts.reach[..., -1, 1:, None] * rates * errors
    if erased is not None:
        lost = lost + parts.decays[..., -1, 1:, None] * rates * erased
    writes = (keys.transpose(-1, -2) @ lost).unbind(2)  # [B, H, Dk, Dv] each
    kept = parts.decays[..., -1, :1, None].unbind(2)
    moved = pushed = gained = ()
    if parts.pushes is not None:
        moved, pushed = parts.reach[..., -1, :1, None].unbind(2), parts.pushes[..., -1, :1, None].unbind(2)
        gained = (keys.transpose(-1, -2) @ (parts.pushes[..., -1, 1:, None] * rates * errors)).unbind(2)
    weights, moments = stack[..., :dim_k, :], stack[..., dim_k:, :]
    origins, anchors = [], []
    for n, opening in enumerate(opens):
        anchor = weights if opening else anchor
        anchors.append(anchor)
        origins.append(stack)
        weights = kept[n] * weights - writes[n]
        if parts.pushes is not None:
            weights = weights + moved[n] * moments
            moments = pushed[n] * moments - gained[n]
        stack = torch.cat((weights, moments), dim=-2) if parts.pushes is not None else weights
        if ends[n]:
            stack = stack.detach()
            weights, moments = stack[..., :dim_k, :], stack[..., dim_k:, :]
    return MovingTrace(torch.stack(origins, 2), tuple(anchors), errors, erased, stack, anchor)


def _moving_read(parts: MovingTiles, trace: MovingTrace, queries: Tensor, rows: slice) -> Tensor:
    """W_t q_t of all tiles for rows 1 .. C, W_{t-1} q_t for rows 0 .. C - 1: `[B, H, N, C, Dv]`."""
    scores = queries @ parts.keys.transpose(-1, -2)
    rates = parts.rates.unsqueeze(-1)
    result = _opening(parts, queries, rows) @ trace.origin
    result = result - (scores * parts.reach[..., rows, 1:]) @ (rates * trace.errors)
    if trace.erased is not None:
        result = result - (scores * parts.decays[..., rows, 1:]) @ (rates * trace.erased)
    return result


def _turned_read(parts: MovingTiles, trace: MovingTrace, queries: Tensor, rows: slice) -> Tensor:
    """The same where the tiles are those of the transpose: `[W_0; S_0]` meets the query from its rows."""
    opened = queries @ trace.origin.transpose(-1, -2)
    width = parts.keys.shape[-1]
    result = parts.decays[..., rows, :1] * opened[..., :width]
    if parts.pushes is not None:
        result = result + parts.reach[..., rows, :1] * opened[..., width:]
    written = parts.rates.unsqueeze(-1) * trace.errors
    return result - ((queries @ written.transpose(-1, -2)) * parts.reach[..., rows, 1:]) @ parts.keys


def _opening(parts: MovingTiles, vectors: Tensor, rows: slice) -> Tensor:
    """What meets [W_0^T; S_0^T] of a tile for each vector: `[D_t0 x | M_t0 x]`."""
    kept = parts.decays[..., rows, :1] * vectors
    return kept if parts.pushes is None else torch.cat((kept, parts.reach[..., rows, :1] * vectors), dim=-1)


def _answered(parts: MovingTiles, taken: Tensor) -> Tensor:
    """A, the coefficients of what the running weights answer."""
    lost = parts.decays[..., 1:] * parts.rates.unsqueeze(-2)
    if parts.share is None:
        return lost if parts.erase else torch.zeros_like(taken)
    seen = taken * parts.share.unsqueeze(-2)
    return seen + lost if parts.erase else seen


def _standing(parts: MovingTiles) -> Tensor:
    """How a tile without writes moves [W^T; S^T]: `[[D_C0 I, M_C0 I], [0, B_C0 I]]`."""
    identity = torch.eye(parts.keys.shape[-1], dtype=parts.keys.dtype, device=parts.keys.device)
    kept = parts.decays[..., -1, :1, None] * identity
    if parts.pushes is None:
        return kept
    top = torch.cat((kept, parts.reach[..., -1, :1, None] * identity), dim=-1)
    pushed = parts.pushes[..., -1, :1, None] * identity
    return torch.cat((top, torch.cat((torch.zeros_like(pushed), pushed), dim=-1)), dim=-2)


def _still(parts: MovingTiles) -> MovingTiles:
    """The same values without gradient."""
    pushes, share = parts.pushes, parts.share
    return MovingTiles(
        parts.keys.detach(),
        parts.targets.detach(),
        parts.rates.detach(),
        parts.decays.detach(),
        None if pushes is None else pushes.detach(),
        parts.moves,
        parts.reach.detach(),
        None if share is None else share.detach(),
        parts.erase,
        parts.held,
    )


def _stopped(
    parts: MovingTiles, stack: Tensor, anchor: Tensor, opens: list[bool], ends: list[bool]
) -> tuple[MovingTiles, MovingTrace]:
    """Every step is a constant; what retention keeps of the weights is not."""
    still = _still(parts)
    with torch.no_grad():
        steps = _moved(still, stack, anchor, opens, ends)
    reach = _reached(parts.decays, still.pushes, still.moves)
    parts = still._replace(decays=parts.decays, reach=reach)
    dim_k = parts.keys.shape[-1]
    stack = torch.cat((stack[..., :dim_k, :], stack[..., dim_k:, :].detach()), dim=-2)
    return parts, _written(parts, steps.errors, steps.erased, stack, anchor, opens, ends)


def _first_order(
    parts: MovingTiles, stack: Tensor, anchor: Tensor, opens: list[bool], ends: list[bool]
) -> tuple[MovingTiles, MovingTrace]:
    """The weights inside the gradient are constants: their answers to the live keys are read first."""
    if parts.share is None:
        return parts, _moved(parts, stack, anchor, opens, ends, first_order=True)
    still = _still(parts)
    with torch.no_grad():
        run = _moved(still, stack, anchor, opens, ends)
    seen = (still.share if still.share is not None else still.rates).unsqueeze(-1)
    answers = seen * _moving_read(still, run, parts.keys, slice(-1))
    parts = parts._replace(targets=parts.targets - answers, share=None)
    return parts, _moved(parts, stack, anchor, opens, ends)
