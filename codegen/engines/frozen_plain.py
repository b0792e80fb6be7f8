"""Tiles of a memory whose gradients stand still, in operations that autograd and the compiler follow.

`frozen_tiles` states what is computed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nldsl.codegen.engines.layers import (
    layer_pairs,
    layers_fixed,
    layers_folded,
    layers_written,
)

FrozenLayers = tuple[Tensor, ...]


class FrozenTiling(NamedTuple):
    """What does not change from tile to tile.

    `opens` says which tiles begin a period, `ends` after which the past is cut off; `holds_anchor` keeps the
    anchor inside gradients from the outer gradient.
    """

    opens: tuple[bool, ...]
    ends: tuple[bool, ...]
    depth: int
    objective: str
    residual: bool
    activation: str
    read: str
    holds_anchor: bool = False


class FrozenCoefficients(NamedTuple):
    """Rows 0 (the boundary) to C for what a token's weights hold of W_0, of each gradient and of S_0.

    `kept [N, M, C + 1, 1]`, `taken [N, M, C + 1, C]`, `moved [N, M, C + 1, 1]`, and for the momentum after
    a tile `push_kept [N, M, 1, 1]`, `push_taken [N, M, 1, C]`; the last three are `None` without momentum.
    """

    kept: Tensor
    taken: Tensor
    moved: Tensor | None = None
    push_kept: Tensor | None = None
    push_taken: Tensor | None = None


def frozen_tiles_plainly(
    pairs: tuple[Tensor, Tensor, Tensor],
    weighing: FrozenCoefficients,
    running: FrozenLayers,
    anchor: FrozenLayers,
    moments: FrozenLayers | None,
    tiling: FrozenTiling,
) -> tuple[Tensor, FrozenLayers, FrozenLayers, FrozenLayers | None]:
    """`frozen_tiles` in operations that autograd and the compiler follow."""
    residual, activation = tiling.residual, tiling.activation
    rows = slice(1, None) if tiling.read == "after" else slice(None, -1)
    reads = []
    by_tile = zip(tiling.opens, tiling.ends, *(x.unbind() for x in pairs), _by_tile(weighing), strict=True)
    for opening, ending, query, key, value, one in by_tile:
        anchor = running if opening else anchor
        at = tuple(w.detach() for w in anchor) if tiling.holds_anchor else anchor
        written = layer_pairs(
            at, key, value, objective=tiling.objective, residual=residual, activation=activation
        )
        if tiling.read == "boundary":
            reads.append(layers_fixed(anchor, query, residual=residual, activation=activation))
        else:
            moved = None if one.moved is None else one.moved[..., rows, :]
            shares = (one.kept[..., rows, :], moved, one.taken[..., rows, :])
            reads.append(
                layers_written(
                    running, moments, written, shares, query, residual=residual, activation=activation
                )
            )
        last = None if one.moved is None else one.moved[..., -1:, :]
        after = layers_folded(
            running, moments, written, (one.kept[..., -1:, :], last, one.taken[..., -1:, :])
        )
        if moments is not None and one.push_kept is not None and one.push_taken is not None:
            moments = layers_folded(moments, None, written, (one.push_kept, None, one.push_taken))
        running = after
        if ending:
            running = tuple(w.detach() for w in running)
            moments = None if moments is None else tuple(s.detach() for s in moments)
    return torch.stack(reads), running, anchor, moments


def _by_tile(weighing: FrozenCoefficients) -> list[FrozenCoefficients]:
    parts = (weighing.kept, weighing.taken, weighing.moved, weighing.push_kept, weighing.push_taken)
    count = len(weighing.kept)
    return [
        FrozenCoefficients(*one)  # type: ignore[arg-type]
        for one in zip(*([None] * count if x is None else x.unbind() for x in parts), strict=True)
    ]
