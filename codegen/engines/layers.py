"""Deep maps as stacks of linear layers whose written weights are never formed.

M(z) = (z +) Wn act(... act(W1 z)).  The gradient of a layer for one pair is d x^T: x the layer's input for
the key and d the error that reaches its output, with all weights at an anchor:

    x_1 = k,                            x_{l+1} = act(W_l x_l)
    d_n = M(k) - v, or -v for dot,      d_l = act'(W_l x_l) * (W_{l+1}^T d_{l+1})

Weights that moved along such gradients, W_t = kept_t W_0 + moved_t S_0 - sum_i taken_ti d_i x_i^T, are read
as

    W_t z = kept_t W_0 z + moved_t S_0 z - sum_i taken_ti (x_i . z) d_i

(Nested Learning reference, engines E6 and E12).  A matrix is the stack of one layer without residual.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nldsl.codegen.engines.tiles import start_weights, with_phase


def activation_value(name: str, z: Tensor) -> Tensor:
    """act(z) for `gelu` (exact), `silu`, `relu` or `tanh`."""
    if name == "gelu":
        return torch.nn.functional.gelu(z)
    if name == "silu":
        return torch.nn.functional.silu(z)
    if name == "relu":
        return torch.relu(z)
    if name == "tanh":
        return torch.tanh(z)
    raise ValueError(f"unknown activation {name!r}")


def activation_slope(name: str, z: Tensor) -> tuple[Tensor, Tensor]:
    """act(z) and act'(z) in closed form; the slope of `relu` at 0 is 0."""
    if name == "gelu":
        below = 0.5 * (1 + torch.erf(z * math.sqrt(0.5)))
        return z * below, below + z * torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    if name == "silu":
        gate = torch.sigmoid(z)
        return z * gate, gate * (1 + z * (1 - gate))
    if name == "relu":
        return torch.relu(z), (z > 0).to(z.dtype)
    if name == "tanh":
        bounded = torch.tanh(z)
        return bounded, 1 - bounded.square()
    raise ValueError(f"unknown activation {name!r}")


def layer_names(start: Tensor | tuple[Tensor, ...] | None, state: dict[str, Tensor] | None) -> list[str]:
    """What follows `W` in the names of the weights: nothing for a matrix, else 1 .. n in the order of use."""
    if state is not None:
        found = [n[1:] for n in state if n[0] == "W" and not n.endswith("_start")]
        return sorted(found, key=lambda n: int(n or 0))
    if isinstance(start, tuple):
        return [str(n) for n in range(1, len(start) + 1)]
    return [""]


def layers_at_start(
    names: list[str],
    start: Tensor | tuple[Tensor, ...] | None,
    state: dict[str, Tensor] | None,
    key: Tensor,
    value: Tensor,
    *,
    moving: bool,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Weights, the open period's weights, and momentum (if `moving`) before the first token.

    Args:
        names: as `layer_names` gives them.
        start: a tuple of `[H, out, in]` or `[B, H, out, in]`, one per layer; for a matrix a tensor, or zeros
            where not given.
        state: what an earlier call returned.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        moving: whether there is momentum.
    """
    if state is None:
        if isinstance(start, tuple):
            running = tuple(w.expand(*key.shape[:2], *w.shape[-2:]) for w in start)
        else:
            running = (start_weights(start, key, value),)
        return running, running, tuple(torch.zeros_like(w) for w in running) if moving else None
    running = tuple(state[f"W{n}"] for n in names)
    anchor = tuple(state.get(f"W{n}_start", state[f"W{n}"]) for n in names)
    return running, anchor, tuple(state[f"S{n}"] for n in names) if moving else None


def layers_at_end(
    names: list[str],
    running: tuple[Tensor, ...],
    anchor: tuple[Tensor, ...],
    moments: tuple[Tensor, ...] | None,
    phase: int,
    period: int,
    cut_every: int,
) -> dict[str, Tensor]:
    """The state after the last token; see `tiles.with_phase`."""
    state = {f"W{n}": w for n, w in zip(names, running, strict=True)}
    if moments is not None:
        state |= {f"S{n}": s for n, s in zip(names, moments, strict=True)}
    anchors = {f"W{n}": w for n, w in zip(names, anchor, strict=True)}
    return with_phase(state, anchors, phase, period, cut_every)


def layers_as_values(weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same values, through which no gradient flows."""
    return tuple(w.detach() for w in weights)


def layer_pairs(
    anchor: tuple[Tensor, ...],
    key: Tensor,
    target: Tensor,
    *,
    objective: str,
    residual: bool,
    activation: str,
) -> list[tuple[Tensor, Tensor]]:
    """Input and error of every layer, first layer first: `(x [..., C, in], d [..., C, out])`.

    Args:
        anchor: the weights `[..., out, in]` at which gradients are taken, first layer first.
        key: `[..., C, Dk]`.
        target: `[..., C, Dv]`.
        objective: `l2`, 1/2 |M(k) - v|^2, or `dot`, -<M(k), v>.
        residual: the map adds its input to its output.
        activation: see `activation_value`.
    """
    inputs, slopes = [key], []
    for weights in anchor[:-1]:
        signal, slope = activation_slope(activation, inputs[-1] @ weights.transpose(-1, -2))
        inputs.append(signal)
        slopes.append(slope)
    if objective == "dot":
        error = -target
    else:
        error = inputs[-1] @ anchor[-1].transpose(-1, -2) - target
        error = error + key if residual else error
    errors = [error]
    for weights, slope in zip(anchor[:0:-1], slopes[::-1], strict=True):
        errors.append(slope * (errors[-1] @ weights))
    return list(zip(inputs, errors[::-1], strict=True))


def layers_fixed(weights: tuple[Tensor, ...], query: Tensor, *, residual: bool, activation: str) -> Tensor:
    """M(q) with the same weights for all tokens, `[..., C, Dv]`."""
    signal = query @ weights[0].transpose(-1, -2)
    for layer in weights[1:]:
        signal = activation_value(activation, signal) @ layer.transpose(-1, -2)
    return query + signal if residual else signal


def layers_written(
    running: tuple[Tensor, ...],
    moments: tuple[Tensor, ...] | None,
    pairs: list[tuple[Tensor, Tensor]],
    coefficients: tuple[Tensor, Tensor | None, Tensor],
    query: Tensor,
    *,
    residual: bool,
    activation: str,
) -> Tensor:
    """M(q) with each token's own written weights, `[..., C, Dv]`.

    Args:
        running: W_0 of every layer, `[..., out, in]`.
        moments: S_0 of every layer, where there is momentum.
        pairs: input and error of every layer.
        coefficients: `kept [..., C, 1]`, `moved [..., C, 1]` or `None`, `taken [..., C, C]`, a row per query.
        query: `[..., C, Dk]`.
        residual: the map adds its input to its output.
        activation: see `activation_value`.
    """
    signal = query
    for n, (weights, pair) in enumerate(zip(running, pairs, strict=True)):
        entering = activation_value(activation, signal) if n > 0 else signal
        moment = None if moments is None else moments[n]
        signal = written_layer(weights, moment, pair, coefficients, entering)
    return query + signal if residual else signal


def written_layer(
    weights: Tensor,
    moment: Tensor | None,
    pair: tuple[Tensor, Tensor],
    coefficients: tuple[Tensor, Tensor | None, Tensor],
    z: Tensor,
) -> Tensor:
    """W_t z_t of one layer for `z` `[..., C, in]`; the others as for `layers_written`, of this layer."""
    (entered, error), (kept, moved, taken) = pair, coefficients
    signal = kept * (z @ weights.transpose(-1, -2))
    if moment is not None and moved is not None:
        signal = signal + moved * (z @ moment.transpose(-1, -2))
    return signal - (taken * (z @ entered.transpose(-1, -2))) @ error


def layers_folded(
    running: tuple[Tensor, ...],
    moments: tuple[Tensor, ...] | None,
    pairs: list[tuple[Tensor, Tensor]],
    coefficients: tuple[Tensor, Tensor | None, Tensor],
) -> tuple[Tensor, ...]:
    """Weights after a tile, from the last row of its coefficients, `[..., 1, 1]`, `[..., 1, C]`."""
    held = [None] * len(running) if moments is None else moments
    layers = zip(running, held, pairs, strict=True)
    return tuple(folded_layer(weights, moment, pair, coefficients) for weights, moment, pair in layers)


def folded_layer(
    weights: Tensor,
    moment: Tensor | None,
    pair: tuple[Tensor, Tensor],
    coefficients: tuple[Tensor, Tensor | None, Tensor],
) -> Tensor:
    """`layers_folded` of one layer."""
    (entered, error), (kept, moved, taken) = pair, coefficients
    after = kept * weights - (taken.transpose(-1, -2) * error).transpose(-1, -2) @ entered
    return after if moment is None or moved is None else after + moved * moment


def coefficient_rows(
    coefficients: tuple[Tensor, Tensor | None, Tensor], rows: slice
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Some rows of the coefficients of a tile; row 0 is its boundary, row t is after the write of token t."""
    kept, moved, taken = coefficients
    return kept[..., rows, :], None if moved is None else moved[..., rows, :], taken[..., rows, :]


def coefficients_by_tile(
    coefficients: tuple[Tensor, Tensor | None, Tensor], rows: slice
) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """Some rows of the coefficients `[B, H, N, C + 1, ...]`, a tile at a time."""
    kept, moved, taken = coefficient_rows(coefficients, rows)
    pushed = [None] * kept.shape[2] if moved is None else moved.unbind(2)
    return list(zip(kept.unbind(2), pushed, taken.unbind(2), strict=True))
