"""Memories whose gradients stand still for a period: TTT, Titans and deep memories in factored form.

For every linear layer of the map, with retention r, momentum b and rate e (Nested Learning reference,
engines E5 and E6; Titans, with the keep factor written as r):

    S_t = b_t S_{t-1} - e_t g_t,    W_t = r_t W_{t-1} + S_t

with g_t = d_t x_t^T the gradient at the weights W_b of the period's start.  In a tile with the decay
matrices D of r and B of b (see `decay`), and M = D B without its column of the boundary,

    W_t = D_t0 W_0 + M_t0 S_0 - sum_{i <= t} M_ti e_i d_i x_i^T,
    S_C = B_C0 S_0 - sum_i B_Ci e_i d_i x_i^T

which `layers` reads without ever forming the weights of a token, and `frozen_tiles` runs forward and
backward; without momentum M is D.  The outer gradient runs through x and d, so it has the terms of second
order.  Under `first_order` W_b is a constant in x and d; under `stop` so are x, d, e, B and S_0, and only
W_0, D and the queries are reached.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.codegen.engines.decay import decay_matrix, momentum_matrix
from nldsl.codegen.engines.frozen_plain import FrozenCoefficients, FrozenTiling
from nldsl.codegen.engines.frozen_tiles import frozen_tiles
from nldsl.codegen.engines.layers import (
    coefficient_rows,
    layer_names,
    layer_pairs,
    layers_as_values,
    layers_at_end,
    layers_at_start,
    layers_folded,
)
from nldsl.codegen.engines.tiles import (
    cut,
    gate,
    joined,
    marked_tiling,
    opened_at,
    tile_decays,
    tokens_between_cuts,
)


def frozen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | tuple[Tensor, ...] | None = None,
    period: int,
    objective: str = "l2",
    map: str = "matrix",
    residual: bool = True,
    activation: str = "gelu",
    read: str = "after",
    gradient: str | tuple[str, int] = "through",
    tile: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient steps with retention and momentum, gradients taken at the start of each period.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        momentum: `[B, H, T]` in [0, 1]; no momentum where not given.
        state: `W` (matrix) or `W1 .. Wn` (mlp, in the order of use), `S...` with momentum, and for a period
            above 1 the `..._start` of each weight and `phase`, the tokens seen of the open period (and since
            the last cut, if the gradient is cut).
        start: weights before the first token, `[H, ...]` or `[B, H, ...]`; for an mlp a tuple, one per layer;
            a matrix that has none starts from zeros.
        period: tokens for which the gradient's weights stand still.
        objective: `l2`, 1/2 |M(k) - v|^2, or `dot`, -<M(k), v>.
        map: `matrix` or `mlp`.
        residual: an mlp adds its input to its output; needs Dk = Dv.
        activation: of an mlp: `gelu` (exact), `silu`, `relu` or `tanh`.
        read: `after` or `before` the own write, or `boundary`, the start of the period.
        gradient: `through`; `first_order`, the weights inside the gradient are constants of the outer loss;
            `stop`, all that a token adds is; `("through", N)`, weights and momentum go on as values without a
            past after every N tokens.
        tile: tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    residual = residual and map == "mlp"
    names = layer_names(start, state)
    running, anchor, moments = layers_at_start(names, start, state, key, value, moving=momentum is not None)
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), layers_at_end(
            names, running, anchor, moments, phase, period, cut_every
        )
    if gradient == "stop":
        key, value, rate = key.detach(), value.detach(), gate(rate, key).detach()
        momentum = None if momentum is None else momentum.detach()
        moments = None if moments is None else layers_as_values(moments)
    tiles, opens, cuts = marked_tiling(tokens, tile, period, cut_every, phase)
    queries, keys, values = cut(query, tiles), cut(key, tiles), cut(value, tiles)
    rates = cut(gate(rate, key), tiles)
    decays = tile_decays(retain, tiles, keys)
    pushes = None if momentum is None else decay_matrix(cut(momentum, tiles, 1.0))
    moves = None if momentum is None else cut(torch.ones_like(momentum), tiles)
    kept, moved, taken = frozen_coefficients(decays, pushes, rates, moves)
    push_kept, _, push_taken = (None, None, None) if pushes is None else _pushed(pushes, rates)
    weighing = FrozenCoefficients(
        kept=_tiles_first(kept),
        taken=_tiles_first(taken),
        moved=None if moved is None else _tiles_first(moved),
        push_kept=None if push_kept is None else _tiles_first(push_kept),
        push_taken=None if push_taken is None else _tiles_first(push_taken),
    )
    steps = FrozenTiling(
        opens=tuple(opens),
        ends=tuple(cuts),
        depth=len(names),
        objective=objective,
        residual=residual,
        activation=activation,
        read=read,
        holds_anchor=gradient in ("first_order", "stop"),
    )
    heads = key.shape[:2]
    pairs = (_tiles_first(queries), _tiles_first(keys), _tiles_first(values))
    reads, running, anchor, moments = frozen_tiles(
        pairs,
        weighing,
        _memories(running),
        _memories(anchor),
        None if moments is None else _memories(moments),
        steps,
    )
    running, anchor = _by_heads(running, heads), _by_heads(anchor, heads)
    moments = None if moments is None else _by_heads(moments, heads)

    phase += tokens
    anchor = running if phase % period == 0 else anchor
    new = layers_at_end(names, running, anchor, moments, phase, period, cut_every)
    return joined(reads.unflatten(1, heads).movedim(0, 2), tiles), new


def frozen_fold(
    running: tuple[Tensor, ...],
    anchor: tuple[Tensor, ...],
    key: Tensor,
    target: Tensor,
    rate: Tensor,
    retain: Tensor,
    *,
    moments: tuple[Tensor, ...] | None = None,
    momentum: Tensor | None = None,
    objective: str = "l2",
    residual: bool = True,
    activation: str = "gelu",
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Write one piece of a period without reads, `[..., C, D]`; leading dims broadcast.

    Args:
        running: weights before the piece, `[..., out, in]`, first layer first; a matrix is one layer
            without residual.
        anchor: weights at which gradients are taken.
        key: `[..., C, Dk]`.
        target: `[..., C, Dv]`, a constant of the objective.
        rate: `[..., C]`.
        retain: `[..., C]`.
        moments: S before the piece, where there is momentum.
        momentum: `[..., C]`.
        objective: `l2` or `dot`.
        residual: the map adds its input to its output.
        activation: see `layers`.

    Returns:
        The weights and the momentum after the piece.
    """
    pairs = layer_pairs(anchor, key, target, objective=objective, residual=residual, activation=activation)
    push = None if momentum is None else decay_matrix(momentum)
    end = coefficient_rows(frozen_coefficients(decay_matrix(retain), push, rate), slice(-1, None))
    return _stepped(running, moments, pairs, end, None if push is None else _pushed(push, rate))


def frozen_coefficients(
    decays: Tensor, pushes: Tensor | None, rates: Tensor, moves: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """What each token's weights hold of W_0, of S_0 and of each gradient, rows 0 (the boundary) to C.

    Args:
        decays: decay matrix of the retention, `[..., C + 1, C + 1]`.
        pushes: decay matrix of the momentum, the same shape.
        rates: `[..., C]`.
        moves: with momentum, 0 for padding and 1 else, `[..., C]`; see `decay.momentum_matrix`.

    Returns:
        `kept [..., C + 1, 1]`, `moved [..., C + 1, 1]` or `None`, `taken [..., C + 1, C]`.
    """
    reached = decays if pushes is None else momentum_matrix(decays, pushes, moves)
    moved = None if pushes is None else reached[..., :1]
    return decays[..., :1], moved, reached[..., 1:] * rates.unsqueeze(-2)


def _pushed(pushes: Tensor, rates: Tensor) -> tuple[Tensor, None, Tensor]:
    """What the momentum after a tile holds of S_0 and of each gradient: `[..., 1, 1]` and `[..., 1, C]`."""
    return pushes[..., -1:, :1], None, pushes[..., -1:, 1:] * rates.unsqueeze(-2)


def _stepped(
    running: tuple[Tensor, ...],
    moments: tuple[Tensor, ...] | None,
    pairs: list[tuple[Tensor, Tensor]],
    end: tuple[Tensor, Tensor | None, Tensor],
    pushed: tuple[Tensor, Tensor | None, Tensor] | None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Weights and momentum after a tile."""
    after = layers_folded(running, moments, pairs, end)
    return after, None if moments is None or pushed is None else layers_folded(moments, None, pairs, pushed)


def _tiles_first(x: Tensor) -> Tensor:
    """`[B, H, N, ...]` to `[N, B * H, ...]`."""
    return x.movedim(2, 0).flatten(1, 2)


def _memories(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`[B, H, ...]` to `[B * H, ...]`."""
    return tuple(w.flatten(0, 1) for w in weights)


def _by_heads(weights: tuple[Tensor, ...], heads: torch.Size) -> tuple[Tensor, ...]:
    """The inverse of `_memories`."""
    return tuple(w.unflatten(0, heads) for w in weights)
