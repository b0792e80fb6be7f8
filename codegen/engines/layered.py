"""Any map of linear layers, gradients standing still, in factored form: no weights of single tokens.

The gradient of a linear layer for one pair is d x^T, x the input of the layer and d the error at its
output. Both come out of one pass through the map at the weights W_b of the period's start, whatever stands
between the layers (norms, products, residual sums, several branches): d is the gradient by a zero that is
added to the layer's output.  With the coefficients of `standing`, the layers are then written and read as

    W_t z = kept_t W_0 z + moved_t S_0 z - sum_i taken_ti (x_i . z) d_i
    W_C   = kept_C W_0 + moved_C S_0 - sum_i taken_Ci d_i x_i^T

(Nested Learning reference, engines E5 and E6; Titans; TTT with its layer norm inside the map).  What a map
multiplies or adds element by element, gains and biases, is a vector for each token instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.constraints import Constraint, MapWeights
from nldsl.codegen.engines.layers import folded_layer, written_layer
from nldsl.codegen.engines.maps import traced
from nldsl.codegen.engines.objectives import objective_value, with_parameters
from nldsl.codegen.engines.standing import Piece, check_standing, standing


def layered(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    momentum: Tensor | None = None,
    weight: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Any = None,
    map: str | dict[str, Any] = "matrix",
    objective: Any = "l2",
    objective_parameter: float | Tensor | tuple[Tensor, ...] | None = None,
    rule: str = "gd",
    update: int = 1,
    anchor: str | int = "retained",
    read: str = "after",
    window: int | None = None,
    constrain: tuple[Constraint, ...] = (),
    gradient: str | tuple[str, int] = "through",
    tile: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient steps on a map of linear layers, taken at the start of each period.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        momentum: `[B, H, T]` in [0, 1]; no momentum where not given.
        weight: `[B, H, T]`, how much a pair counts in the windows it is in, 1 where not given.
        state: what an earlier call, or one of `token_loop`, returned.
        start: the weights before the first token, see `constraints.weights_at_start`.
        map: see `maps`; matrices of a `block` must be used by `fast_linear`, each once.
        objective: see `objectives`; it may look at weights only through the memory's answers.
        objective_parameter: the `p` of `lp` or the `delta` of `huber`, which may be one for each token,
            `[B, H, T]`; of a callable, a tuple of what it takes for each token, `[B, H, T, n]`.
        rule: `gd`.
        update: tokens between updates of the weights that are read.
        anchor: tokens for which the weights of the gradient stand still; `retained` and `current` only under
            a constraint with an accumulator, whose clock it then is.
        read: `after` or `before` the own write, or `boundary`, the start of the update's, else the anchor's
            period.
        window: how many of the last tokens a write is for.
        constrain: `(name, parameter, N)`, due every N tokens, see `constraints`.
        gradient: `through`, `first_order`, `stop`, or `("through", N)`; see `token_loop`.
        tile: the most tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token, as `token_loop` has it.

    Raises:
        ValueError: gradients are wanted at running weights, or by another rule.
    """
    check_standing(rule, anchor, constrain)
    return standing(
        LayeredWriter(),
        (query, key, value),
        (rate, retain, momentum),
        state,
        start=start,
        map=map,
        objective=objective,
        parameter=objective_parameter,
        update=update,
        anchor=anchor,
        read=read,
        constrain=constrain,
        gradient=gradient,
        tile=tile,
        window=window,
        weight=weight,
    )


class LayeredWriter:
    """Writes and reads maps through the inputs and errors of their layers."""

    tile = 64

    def read(self, spec: Any, weights: MapWeights, query: Tensor) -> Tensor:
        """M(q) `[M, C, Dv]` for queries that all see the same weights."""
        return traced(spec, {n: _facing(w) for n, w in weights.items()}, query)[0]

    def write(
        self, spec: Any, objective: Any, piece: Piece, rows: slice, query: Tensor | None
    ) -> tuple[Tensor | None, MapWeights, MapWeights]:
        """See `standing.Writer`."""
        asked = with_parameters(objective, piece.parameters)
        pairs = standing_pairs(spec, asked, piece.at, piece.key, piece.value)
        read = None
        if query is not None:
            moved = None if piece.moved is None else piece.moved[:, rows]
            share = piece.kept[:, rows], moved, piece.taken[:, rows]
            made = {n: _of_tokens(w, piece.moments[n], pairs[n], share) for n, w in piece.running.items()}
            read = traced(spec, made, query)[0]
        moved = None if piece.moved is None else piece.moved[:, -1:]
        end = piece.kept[:, -1:], moved, piece.taken[:, -1:]
        after = {n: _after(w, piece.moments[n], pairs[n], end) for n, w in piece.running.items()}
        if piece.pushed is None:
            return read, after, piece.moments
        gone = piece.pushed[0], None, piece.pushed[1]
        return read, after, {n: _after(s, s, pairs[n], gone) for n, s in piece.moments.items()}


class ProbedLayer:
    """A linear layer that notes its input, and adds a zero to its output for the sake of its gradient."""

    def __init__(self, weight: Tensor, probe: Tensor) -> None:
        self.weight, self.probe = weight, probe
        self.entered: Tensor | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """W z for `z` `[M, C, in]`."""
        if self.entered is not None:
            raise ValueError("a matrix of a map is used twice")
        self.entered = z
        return z @ self.weight.transpose(-1, -2) + self.probe


class WrittenLayer:
    """A linear layer with weights of its own for each token, which are never formed."""

    def __init__(
        self,
        weight: Tensor,
        moment: Tensor,
        pair: tuple[Tensor, Tensor],
        share: tuple[Tensor, Tensor | None, Tensor],
    ) -> None:
        self.weight, self.moment, self.pair, self.share = weight, moment, pair, share

    def __call__(self, z: Tensor) -> Tensor:
        """W_t z_t for `z` `[M, C, in]`."""
        return written_layer(self.weight, self.moment, self.pair, self.share, z)


def standing_pairs(
    spec: Any, objective: Any, at: MapWeights, key: Tensor, value: Tensor
) -> dict[str, tuple[Tensor | None, Tensor]]:
    """Input and error of every layer, `[M, C, in]` and `[M, C, out]`; for a vector, its gradient alone.

    Args:
        spec: the map.
        objective: see `objectives`.
        at: the weights of the gradient, `[M, ...]` by name.
        key: `[M, C, Dk]`.
        value: `[M, C, Dv]`.
    """
    probes = {n: key.new_zeros(*key.shape[:2], w.shape[1]) for n, w in at.items()}

    def lowered(added: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        probed: dict[str, Any] = {
            n: w.unsqueeze(1) + added[n] if w.dim() == 2 else ProbedLayer(w, added[n]) for n, w in at.items()
        }
        loss = objective_value(objective, lambda z: traced(spec, probed, z)[0], {}, key, value).sum()
        layers = {n: layer for n, layer in probed.items() if isinstance(layer, ProbedLayer)}
        return loss, {n: _entered(layer, key) for n, layer in layers.items()}

    errors, entered = torch.func.grad(lowered, has_aux=True)(probes)
    return {n: (entered.get(n), d) for n, d in errors.items()}


def _entered(layer: ProbedLayer, key: Tensor) -> Tensor:
    """The input of a layer, `[M, C, in]`; zeros if no answer needs it."""
    if layer.entered is not None:
        return layer.entered
    return key.new_zeros(*key.shape[:2], layer.weight.shape[2])


def _of_tokens(
    weight: Tensor,
    moment: Tensor,
    pair: tuple[Tensor | None, Tensor],
    share: tuple[Tensor, Tensor | None, Tensor],
) -> Any:
    """The weights of each token: a layer, or vectors `[M, C, n]`."""
    entered, error = pair
    if entered is not None:
        return WrittenLayer(weight, moment, (entered, error), share)
    kept, moved, taken = share
    made = kept * weight.unsqueeze(1) - taken @ error
    return made if moved is None else made + moved * moment.unsqueeze(1)


def _after(
    weight: Tensor,
    moment: Tensor,
    pair: tuple[Tensor | None, Tensor],
    end: tuple[Tensor, Tensor | None, Tensor],
) -> Tensor:
    """The weights `[M, ...]` from the last row of the coefficients."""
    entered, error = pair
    if entered is not None:
        return folded_layer(weight, moment, (entered, error), end)
    kept, moved, taken = end
    made = (kept * weight.unsqueeze(1) - taken @ error)[:, 0]
    return made if moved is None else made + moved[:, 0] * moment


def _facing(weight: Tensor) -> Tensor:
    """Vectors `[M, n]` as `[M, 1, n]`, to meet tokens; matrices as they are."""
    return weight.unsqueeze(1) if weight.dim() == 2 else weight
