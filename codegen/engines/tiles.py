"""Cutting a sequence into tiles that no period boundary divides.

A tile is how many tokens an engine works on at once; it never changes the function.  Padding tokens have
key, value and rate 0 and retain 1, so they leave the weights as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.decay import decay_matrix


def tiling(
    tokens: int, tile: int, period: int | None = None, phase: int = 0
) -> tuple[tuple[int, int, int], list[bool]]:
    """Tiles for `tokens` tokens that start `phase` tokens into a period.

    Returns `(padding before, padding after, tokens a tile)` and, for each tile, whether it opens a period.

    Without a `period` nothing is tied to a boundary and the tiles are as long as asked; else their size
    divides the period, so that a tile lies inside one period.
    """
    if period is None:
        size = max(1, min(tile, tokens))
        count = -(-tokens // size)
        return (0, count * size - tokens, size), [False] * count
    size = _divisor(period, tile)
    front = phase % size
    if front + tokens <= size:  # one piece of one tile: the streaming case needs no padding
        return (0, 0, tokens), [phase == 0]
    count = -(-(front + tokens) // size)
    first, per_period = phase // size, period // size
    opens = [(first + n) % per_period == 0 and (n > 0 or front == 0) for n in range(count)]
    return (front, count * size - front - tokens, size), opens


def marked_tiling(
    tokens: int, tile: int, period: int, cut_every: int, phase: int
) -> tuple[tuple[int, int, int], list[bool], list[bool]]:
    """Tiles that lie inside one period and between two cuts of the outer gradient.

    Args:
        tokens: how many there are, at least 1.
        tile: tokens a tile should have.
        period: tokens of a period; 0 for none.
        cut_every: tokens between cuts; 0 for none.
        phase: tokens seen before these, modulo a multiple of both.

    Returns:
        The tiles as `tiling` gives them; for each, whether it opens a period, and whether a cut follows it.
    """
    common = math.gcd(period, cut_every)
    tiles, _ = tiling(tokens, tile, common or None, phase % common if common else 0)
    front, back, size = tiles
    count = (front + tokens + back) // size
    edges = [phase + min(max(0, n * size - front), tokens) for n in range(count + 1)]
    opens = [period > 0 and edge % period == 0 for edge in edges[:-1]]
    return tiles, opens, [cut_every > 0 and edge % cut_every == 0 for edge in edges[1:]]


def tokens_between_cuts(gradient: str | tuple[str, int]) -> int:
    """N of `through N tokens`; 0 where the outer gradient is never cut."""
    return gradient[1] if isinstance(gradient, tuple) else 0


def _divisor(period: int, tile: int) -> int:
    """The largest divisor of `period` up to `tile`; the period itself where that would be tiny."""
    best = max(size for size in range(1, min(period, tile) + 1) if period % size == 0)
    return best if 4 * best >= min(period, tile) else period


def cut(tensor: Tensor, tiles: tuple[int, int, int], fill: float = 0.0) -> Tensor:
    """`[B, H, T, D]` to `[B, H, N, C, D]`, or a gate `[B, H, T]` to `[B, H, N, C]`, padded with `fill`."""
    front, back, size = tiles
    if front or back:
        tensor = F.pad(tensor, (front, back) if tensor.dim() == 3 else (0, 0, front, back), value=fill)
    return tensor.unflatten(2, (-1, size))


def tile_decays(retain: Tensor | None, tiles: tuple[int, int, int], keys: Tensor) -> Tensor:
    """The decay matrix of every tile, `[B, H, N, C + 1, C + 1]`, for keys already cut."""
    if retain is not None:
        return decay_matrix(cut(retain, tiles, 1.0))
    return decay_matrix(keys.new_ones(keys.shape[3])).expand(*keys.shape[:3], -1, -1)


def joined(tensor: Tensor, tiles: tuple[int, int, int]) -> Tensor:
    """The inverse of `cut`: `[B, H, N, C, D]` to `[B, H, T, D]` without the padding."""
    front, back, _ = tiles
    whole = tensor.flatten(2, 3)
    return whole[:, :, front : whole.shape[2] - back]


def gate(values: Tensor | None, like: Tensor) -> Tensor:
    """A gate `[B, H, T]`; one where it is not given."""
    return like.new_ones(like.shape[:3]) if values is None else values


def start_weights(start: Tensor | None, key: Tensor, value: Tensor) -> Tensor:
    """The weights `[B, H, Dv, Dk]` before the first token: zeros, or `start` given once for all sequences."""
    shape = (key.shape[0], key.shape[1], value.shape[-1], key.shape[-1])
    return value.new_zeros(shape) if start is None else start.expand(shape)


def opened_at(state: dict[str, Tensor] | None) -> int:
    """How many tokens of the open period the state has seen."""
    return 0 if state is None or "phase" not in state else int(state["phase"])


def with_phase(
    state: dict[str, Tensor], anchors: dict[str, Tensor], phase: int, period: int, cut_every: int = 0
) -> dict[str, Tensor]:
    """The state, and for a period above 1 the weights of its start.

    `phase`, the tokens seen modulo the period and the distance `cut_every` of cuts, is there where either is
    above 1.
    """
    cycle = math.lcm(period, cut_every or 1)
    started = {f"{name}_start": weights for name, weights in anchors.items()} if period > 1 else {}
    counted = {"phase": torch.tensor(phase % cycle, dtype=torch.int64)} if cycle > 1 else {}
    return {**state, **started, **counted}
