"""Delta gradient descent on deep maps, layer by layer: the memories of Hope.

Every linear layer erases along its own input from its running weights, while its gradient stands still at
the start W_b of a period (Nested Learning, eqs. 86-91; reference engine E12, reading I2):

    W_t = W_{t-1} (r_t I - e x_t x_t^T) - e d_t x_t^T

with e = e_t on the first layer and e_t / (1 + e_t |x_t|^2) on the others, and with x and d, the layer's
input and error for the key, at W_b.  For one layer this is `delta`'s recurrence with keys x and targets -d:
W_t = D_t0 W_0 + sum_i D_ti u_i x_i^T, u from one triangular solve, and `layers` reads such weights.

With momentum b (reference engine E11, once for each layer), where B are its decays, M = D B without its
column of the boundary, and the erasure z_t = W_{t-1} x_t has to see the momentum too:

    S_t = b_t S_{t-1} - e d_t x_t^T,    W_t = W_{t-1} (r_t I - e x_t x_t^T) + S_t
    W_t = D_t0 W_0 + M_t0 S_0 - sum_i (D_ti e_i z_i + M_ti e_i d_i) x_i^T

so every write is a pair of pairs: (x, e z), which decays like D, and (x, e d), which decays like M.  Under
`first_order` W_b is a constant in x and d; under `stop` so is all that is written, and only W_0, D and the
queries are reached.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.codegen.engines.decay import decay_matrix, momentum_matrix
from nldsl.codegen.engines.delta import erasing_updates
from nldsl.codegen.engines.layers import (
    coefficient_rows,
    coefficients_by_tile,
    layer_names,
    layer_pairs,
    layers_as_values,
    layers_at_end,
    layers_at_start,
    layers_fixed,
    layers_folded,
    layers_written,
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
from nldsl.codegen.engines.triangular import unit_lower_solve

FastLayers = tuple[Tensor, ...]
LayerPairs = list[tuple[Tensor, Tensor]]


def deep_dgd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: FastLayers,
    period: int,
    objective: str = "l2",
    residual: bool = True,
    activation: str = "gelu",
    reading: str = "per_layer",
    read: str = "boundary",
    gradient: str | tuple[str, int] = "through",
    tile: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Delta gradient descent on an mlp, gradients taken at the start of each period, erasures running.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        momentum: `[B, H, T]` in [0, 1]; no momentum where not given.
        state: `W1 .. Wn` in the order of use, `S1 .. Sn` with momentum, and for a period above 1 the
            `..._start` of each weight and `phase`, the tokens seen of the open period (and since the last
            cut, if the gradient is cut).
        start: weights before the first token, one per layer, `[H, out, in]` or `[B, H, out, in]`.
        period: tokens for which the gradient's weights stand still.
        objective: `l2`, 1/2 |M(k) - v|^2, or `dot`, -<M(k), v>.
        residual: the map adds its input to its output; needs Dk = Dv.
        activation: `gelu` (exact), `silu`, `relu` or `tanh`.
        reading: `per_layer` as above; `explicit`, with e = e_t on all layers; `first_layer`, where only the
            first erases and the others take plain gradient steps with e_t.
        read: `after` or `before` the own write, or `boundary`, the start of the period.
        gradient: as in `token_loop`.
        tile: tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    names = layer_names(start, state)
    running, anchor, moments = layers_at_start(names, start, state, key, value, moving=momentum is not None)
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), layers_at_end(
            names, running, anchor, moments, phase, period, cut_every
        )
    rate, stopped, reads = gate(rate, key), gradient == "stop", []
    if stopped:
        key, value, rate = key.detach(), value.detach(), rate.detach()
        momentum = None if momentum is None else momentum.detach()
        moments = None if moments is None else layers_as_values(moments)
    tiles, opens, cuts = marked_tiling(tokens, tile, period, cut_every, phase)
    queries, keys, values, rates = cut(query, tiles), cut(key, tiles), cut(value, tiles), cut(rate, tiles)
    decays = tile_decays(retain, tiles, keys)
    pushes = None if momentum is None else decay_matrix(cut(momentum, tiles, 1.0))
    reach = decays
    if pushes is not None:
        reach = momentum_matrix(decays, pushes, cut(torch.ones_like(rate), tiles))
    weighing = _shares(decays, None if pushes is None else reach)
    shares = coefficients_by_tile(weighing, slice(1, None) if read == "after" else slice(None, -1))
    ends = coefficients_by_tile(weighing, slice(-1, None))
    tails = () if pushes is None else pushes[..., -1, :].unbind(2)
    pieces = zip(*(x.unbind(2) for x in (queries, keys, values, rates, decays, reach)), strict=True)
    for n, (q, k, v, e, decay, reached) in enumerate(pieces):
        anchor = running if opens[n] else anchor
        at = layers_as_values(anchor) if stopped or gradient == "first_order" else anchor
        pairs = layer_pairs(at, k, v, objective=objective, residual=residual, activation=activation)
        if stopped:
            still, gone = decay.detach(), reached.detach()
            written, gained = _deep_writes(layers_as_values(running), moments, pairs, e, still, gone, reading)
        else:
            written, gained = _deep_writes(running, moments, pairs, e, decay, reached, reading)
        if read == "boundary":
            reads.append(layers_fixed(anchor, q, residual=residual, activation=activation))
        else:
            reads.append(
                layers_written(
                    running, moments, written, shares[n], q, residual=residual, activation=activation
                )
            )
        running = layers_folded(running, moments, written, ends[n])
        moments = None if moments is None else _pushed_on(moments, gained, tails[n])
        if cuts[n]:
            running = layers_as_values(running)
            moments = None if moments is None else layers_as_values(moments)

    phase += tokens
    anchor = running if phase % period == 0 else anchor
    new = layers_at_end(names, running, anchor, moments, phase, period, cut_every)
    return joined(torch.stack(reads, dim=2), tiles), new


def deep_dgd_fold(
    running: FastLayers,
    anchor: FastLayers,
    key: Tensor,
    target: Tensor,
    rate: Tensor,
    retain: Tensor,
    *,
    moments: FastLayers | None = None,
    momentum: Tensor | None = None,
    objective: str = "l2",
    residual: bool = True,
    activation: str = "gelu",
    reading: str = "per_layer",
) -> tuple[FastLayers, FastLayers | None]:
    """Write one piece of a period without reads.  Leading dims broadcast: stacked memories may share key
    and gates.

    Args:
        running: weights before the piece, `[..., out, in]`, first layer first.
        anchor: weights at which gradients are taken, the same shapes.
        key: `[..., C, Dk]`.
        target: `[..., C, Dv]`, a constant of the objective.
        rate: `[..., C]`.
        retain: `[..., C]`.
        moments: S before the piece, where there is momentum.
        momentum: `[..., C]`.
        objective: `l2` or `dot`.
        residual: the map adds its input to its output.
        activation: see `layers`.
        reading: see `deep_dgd`.

    Returns:
        The weights and the momentum after the piece.
    """
    decays = decay_matrix(retain)
    pairs = layer_pairs(anchor, key, target, objective=objective, residual=residual, activation=activation)
    if moments is None or momentum is None:
        written = erased_pairs(running, pairs, rate, decays, reading)
        return layers_folded(
            running, None, written, coefficient_rows(_shares(decays, None), slice(-1, None))
        ), None
    pushes = decay_matrix(momentum)
    reach = momentum_matrix(decays, pushes)
    written, gained = _deep_writes(running, moments, pairs, rate, decays, reach, reading)
    after = layers_folded(
        running, moments, written, coefficient_rows(_shares(decays, reach), slice(-1, None))
    )
    return after, _pushed_on(moments, gained, pushes[..., -1, :])


def erased_pairs(
    running: FastLayers,
    pairs: LayerPairs,
    rate: Tensor,
    decays: Tensor,
    reading: str,
) -> LayerPairs:
    """The pairs `(x, -u)` that stand for descent and erasure together, for every layer.

    Args:
        running: W_0 of every layer, `[..., out, in]`.
        pairs: input x `[..., C, in]` and error d `[..., C, out]` of every layer at the anchor.
        rate: `[..., C]`.
        decays: decay matrix of the retention, `[..., C + 1, C + 1]`.
        reading: see `deep_dgd`.
    """
    written = []
    for n, (weights, (entered, error)) in enumerate(zip(running, pairs, strict=True)):
        if n > 0 and reading == "first_layer":
            written.append((entered, rate.unsqueeze(-1) * error))
            continue
        own = _own_rate(rate, entered, n, reading)
        written.append((entered, -erasing_updates(weights, entered, -error, own, decays)))
    return written


def moving_pairs(
    running: FastLayers,
    moments: FastLayers,
    pairs: LayerPairs,
    rate: Tensor,
    decays: Tensor,
    reach: Tensor,
    reading: str,
) -> tuple[LayerPairs, LayerPairs]:
    """What descent with momentum and erasure write, for every layer.

    Args:
        running: W_0 of every layer, `[..., out, in]`.
        moments: S_0 of every layer, the same shapes.
        pairs: input x `[..., C, in]` and error d `[..., C, out]` of every layer at the anchor.
        rate: `[..., C]`.
        decays: D, `[..., C + 1, C + 1]`.
        reach: M, the same shape.
        reading: see `deep_dgd`.

    Returns:
        The pairs `(x, e z)` of the erasure and, behind them along C, `(x, e d)` of the descent; and the
        latter alone.
    """
    before, reached = decays[..., :-1, :], reach[..., :-1, :]
    both, gained = [], []
    for n, (weights, moment, (entered, error)) in enumerate(zip(running, moments, pairs, strict=True)):
        own = _own_rate(rate, entered, n, reading).unsqueeze(-1)
        pushed = own * error
        if n > 0 and reading == "first_layer":
            erased = torch.zeros_like(pushed)
        else:
            gram = entered @ entered.transpose(-1, -2)
            answered = before[..., :1] * (entered @ weights.transpose(-1, -2))
            answered = answered + reached[..., :1] * (entered @ moment.transpose(-1, -2))
            answered = answered - (gram * reached[..., 1:]) @ pushed
            erased = unit_lower_solve(own * gram * before[..., 1:], own * answered)
        gained.append((entered, pushed))
        both.append((torch.cat((entered, entered), dim=-2), torch.cat((erased, pushed), dim=-2)))
    return both, gained


def _own_rate(rate: Tensor, entered: Tensor, layer: int, reading: str) -> Tensor:
    """The rate of a layer, `[..., C]`: implicit behind the first, where the reading says so."""
    return rate / (1 + rate * entered.square().sum(-1)) if layer > 0 and reading == "per_layer" else rate


def _deep_writes(
    running: FastLayers,
    moments: FastLayers | None,
    pairs: LayerPairs,
    rate: Tensor,
    decays: Tensor,
    reach: Tensor,
    reading: str,
) -> tuple[LayerPairs, LayerPairs]:
    """What is written to the weights, and what to the momentum."""
    if moments is None:
        return erased_pairs(running, pairs, rate, decays, reading), []
    return moving_pairs(running, moments, pairs, rate, decays, reach, reading)


def _shares(decays: Tensor, reach: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """What each token's weights hold of W_0, of S_0 and of each write; see `layers`."""
    if reach is None:
        return decays[..., :1], None, decays[..., 1:]
    return decays[..., :1], reach[..., :1], torch.cat((decays[..., 1:], reach[..., 1:]), dim=-1)


def _pushed_on(moments: FastLayers, gained: LayerPairs, pushes: Tensor) -> FastLayers:
    """S after a tile, from the last row of B, `[..., C + 1]`."""
    return layers_folded(moments, None, gained, (pushes[..., None, :1], None, pushes[..., None, 1:]))
