"""Any map whose gradients stand still for a while: the engine for what has no closed form.

The gradient is linear in the objective, so with the coefficients of `standing`

    sum_i taken_ti g_i = grad_W sum_i taken_ti objective_i   at W_b.

A row of coefficients is one vector that is pulled back through the objectives of a piece of tokens
(`torch.func.vjp`): one row for the weights at the end of the piece, one more for the momentum, and, where
tokens read their own weights, a row for each of them.  No gradient of a single token is formed, and nothing
is asked of the map or the objective but a derivative (Nested Learning reference, engine E5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.constraints import Constraint, MapWeights
from nldsl.codegen.engines.maps import traced
from nldsl.codegen.engines.objectives import objective_value, with_parameters
from nldsl.codegen.engines.standing import Piece, check_standing, standing


def any_map(
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
    """Gradient steps on any map, taken at the start of each period.

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
        map: see `maps`.
        objective: see `objectives`.
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
        PullingWriter(),
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


class PullingWriter:
    """Writes maps by pulling coefficients back through their objectives."""

    tile = 8  # each token's weights are formed

    def read(self, spec: Any, weights: MapWeights, query: Tensor) -> Tensor:
        """M(q) `[M, C, Dv]` for queries that all see the same weights."""
        return torch.func.vmap(lambda one, z: traced(spec, one, z)[0])(weights, query)

    def write(
        self, spec: Any, objective: Any, piece: Piece, rows: slice, query: Tensor | None
    ) -> tuple[Tensor | None, MapWeights, MapWeights]:
        """See `standing.Writer`."""
        chosen = [piece.taken[:, -1:]]
        chosen += [] if query is None else [piece.taken[:, rows]]
        chosen += [] if piece.pushed is None else [piece.pushed[1]]
        pulled = _pulled_back(spec, objective, piece, torch.cat(chosen, 1))
        after = {n: _held(piece, n, slice(-1, None))[:, 0] - pulled[n][:, 0] for n in piece.running}
        moments = piece.moments
        if piece.pushed is not None:
            left = piece.pushed[0]
            moments = {n: _spread(left, s)[:, 0] - pulled[n][:, -1] for n, s in moments.items()}
        if query is None:
            return None, after, moments
        tokens = query.shape[1]
        own = {n: (_held(piece, n, rows) - pulled[n][:, 1 : tokens + 1]).flatten(0, 1) for n in piece.running}
        read = self.read(spec, own, query.flatten(0, 1).unsqueeze(1))
        return read.unflatten(0, query.shape[:2])[:, :, 0], after, moments


def _held(piece: Piece, name: str, rows: slice) -> Tensor:
    """What some rows hold of W_0 and S_0, `[M, R, ...]`."""
    held = _spread(piece.kept[:, rows], piece.running[name])
    return held if piece.moved is None else held + _spread(piece.moved[:, rows], piece.moments[name])


def _spread(gates: Tensor, content: Tensor) -> Tensor:
    """`[M, R, 1]` times `[M, ...]`: `[M, R, ...]`."""
    return gates.reshape(*gates.shape[:2], *[1] * (content.dim() - 1)) * content.unsqueeze(1)


def _pulled_back(spec: Any, objective: Any, piece: Piece, rows: Tensor) -> dict[str, Tensor]:
    """sum_i rows_ri g_i for every row r, `[M, R, ...]` by name of the weight, for rows `[M, R, C]`."""

    def one(
        weights: MapWeights, keys: Tensor, values: Tensor, coefficients: Tensor, *own: Tensor
    ) -> dict[str, Tensor]:
        def lowered(moving: MapWeights) -> Tensor:
            def memory(z: Tensor) -> Tensor:
                return traced(spec, moving, z)[0]

            return objective_value(with_parameters(objective, own), memory, moving, keys, values)

        pull = torch.func.vjp(lowered, weights)[1]
        return torch.func.vmap(lambda row: pull(row)[0])(coefficients)

    return torch.func.vmap(one)(piece.at, piece.key, piece.value, rows, *piece.parameters)
