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
    kept, moved, taken = coefficients
    signal = query
    for n, (weights, (entered, error)) in enumerate(zip(running, pairs, strict=True)):
        entering = activation_value(activation, signal) if n > 0 else signal
        signal = kept * (entering @ weights.transpose(-1, -2))
        if moments is not None and moved is not None:
            signal = signal + moved * (entering @ moments[n].transpose(-1, -2))
        signal = signal - (taken * (entering @ entered.transpose(-1, -2))) @ error
    return query + signal if residual else signal


def layers_folded(
    running: tuple[Tensor, ...],
    moments: tuple[Tensor, ...] | None,
    pairs: list[tuple[Tensor, Tensor]],
    coefficients: tuple[Tensor, Tensor | None, Tensor],
) -> tuple[Tensor, ...]:
    """Weights after a tile, from the last row of its coefficients, `[..., 1, 1]`, `[..., 1, C]`."""
    kept, moved, taken = coefficients
    folded = []
    for n, (weights, (entered, error)) in enumerate(zip(running, pairs, strict=True)):
        after = kept * weights - (taken.transpose(-1, -2) * error).transpose(-1, -2) @ entered
        folded.append(after if moments is None or moved is None else after + moved * moments[n])
    return tuple(folded)


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
