"""Orthogonalised steps on maps of linear layers, gradients standing still: Muon inside the sequence.

    S_t = b_t S_{t-1} - g_t,    W_t = r_t W_{t-1} + e_t NS(S_t)

with g_t the gradient at the start W_b of a period, over a window of pairs where there is one (Nested
Learning, Eq. 42-44; Atlas; reference engine E8).  NS is not linear, so the S_t of a tile are formed; all of
them are orthogonalised in one batch, and the weights follow from the decays of the retention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.constraints import MapWeights
from nldsl.codegen.engines.layered import LayeredWriter, standing_pairs
from nldsl.codegen.engines.newton_schulz import orthogonalised
from nldsl.codegen.engines.objectives import with_parameters
from nldsl.codegen.engines.standing import Piece, standing


def orthogonal(
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
    update: int = 1,
    anchor: int,
    read: str = "after",
    window: int | None = None,
    gradient: str | tuple[str, int] = "through",
    tile: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Orthogonalised momentum on a map of linear layers.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, the length of a step, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        momentum: `[B, H, T]` in [0, 1]; 0 where not given.
        weight: `[B, H, T]`, how much a pair counts in the windows it is in, 1 where not given.
        state: what an earlier call, or one of `token_loop`, returned.
        start: the weights before the first token, see `constraints.weights_at_start`.
        map: see `maps`; every weight a matrix.
        objective: see `objectives`.
        objective_parameter: the `p` of `lp` or the `delta` of `huber`, which may be one for each token,
            `[B, H, T]`; of a callable, a tuple of what it takes for each token, `[B, H, T, n]`.
        update: tokens between updates of the weights that are read.
        anchor: tokens for which the weights of the gradient stand still.
        read: `after` or `before` the own write, or `boundary`.
        window: how many of the last tokens each gradient sums over.
        gradient: `through`, `first_order`, `stop`, or `("through", N)`; see `token_loop`.
        tile: the most tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token, as `token_loop` has it.
    """
    return standing(
        OrthogonalWriter(),
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
        constrain=(),
        gradient=gradient,
        tile=tile or OrthogonalWriter.tile,
        window=window,
        weight=weight,
        orthogonal=True,
    )


class OrthogonalWriter(LayeredWriter):
    """Writes maps by orthogonalised steps; the momentum of every token is formed."""

    tile = 16

    def write(
        self, spec: Any, objective: Any, piece: Piece, rows: slice, query: Tensor | None
    ) -> tuple[Tensor | None, MapWeights, MapWeights]:
        """See `standing.Writer`; `pushed` holds a row for every token."""
        assert piece.pushed is not None
        pairs = standing_pairs(
            spec, with_parameters(objective, piece.parameters), piece.at, piece.key, piece.value
        )
        left, share = piece.pushed
        kept, wanted = (
            x[:, -1:] if query is None else torch.cat((x[:, rows], x[:, -1:]), 1)
            for x in (piece.kept, piece.taken)
        )
        made, after, moments = {}, {}, {}
        for name, weights in piece.running.items():
            entered, error = pairs[name]
            assert entered is not None
            slopes = (error.unsqueeze(-1) @ entered.unsqueeze(-2)).flatten(2)  # [M, P + C, out * in]
            steps = torch.baddbmm(left @ _flat(piece.moments[name]), share, slopes, alpha=-1)
            steps = steps.unflatten(2, weights.shape[1:])  # [M, C, out, in]
            moments[name] = steps[:, -1]
            own = torch.baddbmm(kept @ _flat(weights), wanted, orthogonalised(steps).flatten(2))
            own = own.unflatten(2, weights.shape[1:])
            made[name], after[name] = own[:, :-1], own[:, -1]
        if query is None:
            return None, after, moments
        flat = {n: w.flatten(0, 1) for n, w in made.items()}
        read = self.read(spec, flat, query.flatten(0, 1).unsqueeze(1))
        return read.unflatten(0, query.shape[:2])[:, :, 0], after, moments


def _flat(weights: Tensor) -> Tensor:
    """`[M, out, in]` as one row, `[M, 1, out * in]`."""
    return weights.flatten(1).unsqueeze(1)
