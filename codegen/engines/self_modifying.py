"""Memories that write their own projections: a period is read from its start, then all are written.

Nested Learning, section 8.2, Eq. 83-90; reference c.10.  Inside a period of C tokens nothing that is read
changes, so keys, values, gates and reads of the period are computed in parallel; then every memory is
folded over its C writes by the closed forms of `deep_dgd` and `frozen`.  The memories lie side by side on
a leading axis M.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nldsl.codegen.engines.parts import activate

Weights = tuple[Tensor, ...]


def periods(tokens: int, phase: int, period: int) -> list[tuple[int, int, bool]]:
    """Pieces `(begin, end, opens)` of a sequence that begins `phase` tokens into a period.

    >>> periods(5, 1, 2)
    [(0, 1, False), (1, 3, True), (3, 5, True)]
    """
    if tokens == 0:
        return [(0, 0, False)]
    cuts = [0, *range((period - phase) % period or period, tokens, period), tokens]
    opens = [phase == 0, *[True] * (len(cuts) - 2)]
    return [(a, b, o) for a, b, o in zip(cuts, cuts[1:], opens, strict=False) if b > a]


def stacked_starts(starts: Iterable[Iterable[Tensor]], batch: int) -> Weights:
    """Starts `[H, out, in]` of M memories, layer by layer, as fast weights `[M, B, H, out, in]`."""
    layers = zip(*starts, strict=True)
    return tuple(torch.stack(list(layer)).unsqueeze(1).expand(-1, batch, -1, -1, -1) for layer in layers)


def one_memory(weights: Weights, index: int) -> Weights:
    """The weights `[B, H, out, in]` of one of the stacked memories."""
    return tuple(layer[index] for layer in weights)


def all_but(weights: Weights, count: int) -> Weights:
    """All stacked memories but the first `count`."""
    return tuple(layer[count:] for layer in weights)


def constants(weights: Weights) -> Weights:
    """The same values, without a past."""
    return tuple(layer.detach() for layer in weights)


def faded(weights: Weights, retain: Tensor) -> Weights:
    """What is left of weights `[..., B, H, out, in]` after gates `[B, H, T]`."""
    left = retain.prod(-1)[..., None, None]
    return tuple(left * layer for layer in weights)


def only_faded(before: Weights, after: Weights, retain: Tensor) -> Weights:
    """The values of `after`, of which only what retention leaves of `before` has a past."""
    return tuple(
        kept + (layer - kept).detach() for kept, layer in zip(faded(before, retain), after, strict=True)
    )


def answer(weights: Weights, z: Tensor, *, residual: bool, activation: str) -> Tensor:
    """What memories answer to `z` `[..., T, d]`: linear layers with an activation between them."""
    y = z
    for index, layer in enumerate(weights):
        y = (y if index == 0 else activate(activation, y)) @ layer.transpose(-1, -2)
    return z + y if residual else y
