"""Delta gradient descent on deep maps, layer by layer: the memories of Hope.

Every linear layer erases along its own input from its running weights, while its gradient stands still at
the start W_b of a period (Nested Learning, eqs. 86-91; reference engine E12, reading I2):

    W_t = W_{t-1} (r_t I - e x_t x_t^T) - e d_t x_t^T

with e = e_t on the first layer and e_t / (1 + e_t |x_t|^2) on the others, and with x and d, the layer's
input and error for the key, at W_b.  For one layer this is `delta`'s recurrence with keys x and targets -d:
W_t = D_t0 W_0 + sum_i D_ti u_i x_i^T, u from one triangular solve, and `layers` reads such weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nldsl.codegen.engines.decay import decay_matrix
from nldsl.codegen.engines.delta import erasing_updates
from nldsl.codegen.engines.layers import (
    coefficients_by_tile,
    layer_names,
    layer_pairs,
    layers_fixed,
    layers_folded,
    layers_written,
)
from nldsl.codegen.engines.tiles import cut, joined, opened_at, tile_decays, tiling, with_phase


def deep_dgd(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: tuple[Tensor, ...],
    period: int,
    objective: str = "l2",
    residual: bool = True,
    activation: str = "gelu",
    reading: str = "per_layer",
    read: str = "boundary",
    first_order: bool = False,
    tile: int = 64,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Delta gradient descent on an mlp, gradients taken at the start of each period, erasures running.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        state: `W1 .. Wn` in the order of use, and for a period above 1 the `..._start` of each and `phase`.
        start: weights before the first token, one per layer, `[H, out, in]` or `[B, H, out, in]`.
        period: tokens for which the gradient's weights stand still.
        objective: `l2`, 1/2 |M(k) - v|^2, or `dot`, -<M(k), v>.
        residual: the map adds its input to its output; needs Dk = Dv.
        activation: `gelu` (exact), `silu`, `relu` or `tanh`.
        reading: `per_layer` as above; `explicit`, with e = e_t on all layers; `first_layer`, where only the
            first erases and the others take plain gradient steps with e_t.
        read: `after` or `before` the own write, or `boundary`, the start of the period.
        first_order: the weights inside the gradient are constants of the outer loss.
        tile: tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    names = layer_names(start, state)
    if state is None:
        running = anchor = tuple(w.expand(*key.shape[:2], *w.shape[-2:]) for w in start)
    else:
        running = tuple(state[f"W{n}"] for n in names)
        anchor = tuple(state.get(f"W{n}_start", state[f"W{n}"]) for n in names)
    phase, tokens = opened_at(state), key.shape[2]
    reads, tiles = [], (0, 0, 1)
    if tokens > 0:
        tiles, opens = tiling(tokens, tile, period, phase)
        queries, keys, values, rates = cut(query, tiles), cut(key, tiles), cut(value, tiles), cut(rate, tiles)
        decays = tile_decays(retain, tiles, keys)
        weighing = (decays[..., :1], None, decays[..., 1:])
        shares = coefficients_by_tile(weighing, slice(1, None) if read == "after" else slice(None, -1))
        ends = coefficients_by_tile(weighing, slice(-1, None))
        pieces = zip(*(x.unbind(2) for x in (queries, keys, values, rates, decays)), strict=True)
        for n, (q, k, v, e, decay) in enumerate(pieces):
            anchor = running if opens[n] else anchor
            at = tuple(w.detach() for w in anchor) if first_order else anchor
            pairs = layer_pairs(at, k, v, objective=objective, residual=residual, activation=activation)
            written = erased_pairs(running, pairs, e, decay, reading)
            if read == "boundary":
                reads.append(layers_fixed(anchor, q, residual=residual, activation=activation))
            else:
                reads.append(
                    layers_written(
                        running, None, written, shares[n], q, residual=residual, activation=activation
                    )
                )
            running = layers_folded(running, None, written, ends[n])
        phase = (phase + tokens) % period
        anchor = running if phase == 0 else anchor

    new = {f"W{n}": w for n, w in zip(names, running, strict=True)}
    new = with_phase(new, {f"W{n}": w for n, w in zip(names, anchor, strict=True)}, phase, period)
    return joined(torch.stack(reads, dim=2), tiles) if reads else torch.zeros_like(value), new


def deep_dgd_fold(
    running: tuple[Tensor, ...],
    anchor: tuple[Tensor, ...],
    key: Tensor,
    target: Tensor,
    rate: Tensor,
    retain: Tensor,
    *,
    objective: str = "l2",
    residual: bool = True,
    activation: str = "gelu",
    reading: str = "per_layer",
) -> tuple[Tensor, ...]:
    """Write one piece of a period without reads.  Leading dims broadcast: stacked memories may share key
    and gates.

    Args:
        running: weights before the piece, `[..., out, in]`, first layer first.
        anchor: weights at which gradients are taken, the same shapes.
        key: `[..., C, Dk]`.
        target: `[..., C, Dv]`, a constant of the objective.
        rate: `[..., C]`.
        retain: `[..., C]`.
        objective: `l2` or `dot`.
        residual: the map adds its input to its output.
        activation: see `layers`.
        reading: see `deep_dgd`.

    Returns:
        The weights after the piece.
    """
    decays = decay_matrix(retain)
    pairs = layer_pairs(anchor, key, target, objective=objective, residual=residual, activation=activation)
    written = erased_pairs(running, pairs, rate, decays, reading)
    return layers_folded(running, None, written, (decays[..., -1:, :1], None, decays[..., -1:, 1:]))


def erased_pairs(
    running: tuple[Tensor, ...],
    pairs: list[tuple[Tensor, Tensor]],
    rate: Tensor,
    decays: Tensor,
    reading: str,
) -> list[tuple[Tensor, Tensor]]:
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
        own = rate / (1 + rate * entered.square().sum(-1)) if n > 0 and reading == "per_layer" else rate
        written.append((entered, -erasing_updates(weights, entered, -error, own, decays)))
    return written
