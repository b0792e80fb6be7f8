"""Writes for a window of pairs: every token takes a gradient step on the last pairs, not on its own alone.

    g_t = sum_{t - w < i <= t} c_i grad objective(W; k_i, v_i)                (Omega rule of Atlas)

Where gradients stand still a window only changes coefficients: `window_sums` is the matrix G of who counts
in whose write, and with M as in `standing`, W_t = kept_t W_0 + moved_t S_0 - sum_i (M diag(e) G)_ti g_i
over the pairs of the piece and the last w - 1 before it (Nested Learning reference, engine E7).

For a matrix, the squared error and running gradients, each token erases along its w keys at once:

    W_t = W~_t - e_t sum_i c_i (X k_i - v_i) k_i^T,    X = W~_t (retained) or W_{t-1} (current)

The u_ti = e_t c_i (v_i - X k_i) of a tile of C tokens solve one unit lower-triangular system of size C w: a
pair of one token meets all pairs of the tokens before, and none of its own token's.  The system grows with
the square of the window, so tiles shrink as windows grow, and `long_windows` takes those above
a share of the features of a key.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.erasing import erasing_solved
from nldsl.codegen.engines.long_windows import long_window_delta
from nldsl.codegen.engines.tiles import (
    cut,
    gate,
    joined,
    marked_tiling,
    opened_at,
    start_weights,
    tile_decays,
    tokens_between_cuts,
    with_phase,
)

ROWS_OF_SOLVE = 64  # pairs of one tile


def window_sums(weight: Tensor, before: int, window: int) -> Tensor:
    """How much each pair counts in the write of each token, `[..., C, P + C]`.

    Args:
        weight: of the pairs in any window, `[..., P + C]`, those of earlier tokens first.
        before: P, how many there are.
        window: how many of the last tokens a write is for.
    """
    places = torch.arange(weight.shape[-1], device=weight.device)
    age = places[before:, None] - places
    return weight.unsqueeze(-2) * ((age >= 0) & (age < window)).to(weight.dtype)


def window_delta(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    weight: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    window: int,
    start: Tensor | None = None,
    erase: str = "retained",
    read: str = "after",
    gradient: str | tuple[str, int] = "through",
    tile: int = 16,
    longest: float = 0.375,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The delta rule on a window of pairs.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]`, 1 where not given.
        retain: `[B, H, T]` in [0, 1], 1 where not given.
        weight: `[B, H, T]`, how much a pair counts in the windows it is in, 1 where not given.
        state: `W` `[B, H, Dv, Dk]`; `window_key`, `window_value` `[B, H, P, D]` and `window_weight`
            `[B, H, P]`, the last `window - 1` pairs; `phase` where the gradient is cut.
        window: how many of the last tokens a write is for, itself included.
        start: weights before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros where not given.
        erase: `retained` or `current`.
        read: `after` or `before` the own write.
        gradient: as `delta`.
        tile: tokens a solve spans, fewer where windows are long; never changes the function.
        longest: pairs of one token that a solve takes, as a share of the features of a key (by
            measurement); never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    weights = start_weights(start, key, value) if state is None else state["W"]
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    given = (key, value, gate(weight, key))
    names = ("window_key", "window_value", "window_weight")
    held = [x[:, :, :0] if state is None else state[n] for n, x in zip(names, given, strict=True)]
    seen = [torch.cat(both, dim=2) for both in zip(held, given, strict=True)]
    carried = {n: x[:, :, max(0, x.shape[2] - window + 1) :] for n, x in zip(names, seen, strict=True)}
    if tokens == 0:
        return torch.zeros_like(value), with_phase({"W": weights}, {}, phase, 1, cut_every) | carried
    now = min(window, seen[0].shape[2])  # no more pairs than there are
    if now > longest * key.shape[-1]:
        read_out, weights = long_window_delta(
            query,
            (seen[0], seen[1], seen[2]),
            gate(rate, key),
            retain,
            weights,
            before=held[0].shape[2],
            window=now,
            erase=erase,
            read=read,
            gradient=gradient,
            phase=phase,
        )
        return read_out, with_phase({"W": weights}, {}, phase + tokens, 1, cut_every) | carried
    window = now
    tiles, _, ends = marked_tiling(tokens, max(1, min(tile, ROWS_OF_SOLVE // window)), 0, cut_every, phase)
    pairs = _Pairs(*(_window_pairs(x, held[0].shape[2], window, tiles) for x in seen))
    rates = (cut(gate(rate, key), tiles).unsqueeze(-1) * pairs.weight).flatten(-2)  # [B, H, N, C w]
    keys, values = pairs.key.flatten(3, 4), pairs.value.flatten(3, 4)  # [B, H, N, C w, D]
    decays = tile_decays(retain, tiles, keys[:, :, :, : tiles[2]])
    if gradient in ("first_order", "stop"):  # what the solve finds is a constant
        given = tuple(x.detach() for x in (keys, values, rates, decays, weights))
        updates, origin, _ = _window_solved(*given, window=window, erase=erase, ends=ends)
        if gradient == "first_order":
            answers = _window_read(keys, given[0], updates, origin, _window_erased(given[3], window, erase))
            updates = rates.unsqueeze(-1) * (values - answers)
        else:
            keys = given[0]
        origin, weights = _window_written(keys, updates, decays, weights, window)
    else:
        updates, origin, weights = _window_solved(
            keys, values, rates, decays, weights, window=window, erase=erase, ends=ends
        )
    rows = decays[..., 1:, :] if read == "after" else decays[..., :-1, :]
    reads = _window_read(cut(query, tiles), keys, updates, origin, _each_pair(rows, window))
    return joined(reads, tiles), with_phase({"W": weights}, {}, phase + tokens, 1, cut_every) | carried


class _Pairs(NamedTuple):
    """The windows of every token: `[B, H, N, C, w, D]`, and weights `[B, H, N, C, w]`."""

    key: Tensor
    value: Tensor
    weight: Tensor


def _window_pairs(seen: Tensor, before: int, window: int, tiles: tuple[int, int, int]) -> Tensor:
    """The last `window` pairs of each token, cut into tiles; zeros where there are none.

    Args:
        seen: of earlier tokens, then of these, `[B, H, P + T, D]` or `[B, H, P + T]`.
        before: P.
        window: how many of the last tokens.
        tiles: see `tiles.tiling`.
    """
    front, back, size = tiles
    lacking = window - 1 - before
    widths = (lacking + front, back) if seen.dim() == 3 else (0, 0, lacking + front, back)
    windows = F.pad(seen, widths).unfold(2, window, 1).unflatten(2, (-1, size))
    return windows if seen.dim() == 3 else windows.transpose(-1, -2)


def _window_solved(
    keys: Tensor,
    values: Tensor,
    rates: Tensor,
    decays: Tensor,
    weights: Tensor,
    *,
    window: int,
    erase: str,
    ends: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """U `[..., C w, Dv]`, W_0 of every tile transposed `[..., Dk, Dv]`, and the weights after the last."""
    written, answered = erasing_solved(keys, values, rates, _window_erased(decays, window, erase))
    tails = _each_pair(decays[..., -1:, :], window)[..., 0, 1:, None] * keys
    writes = written.transpose(-1, -2) @ tails
    kept = decays[..., -1, :1, None] * torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
    turns = kept - answered.transpose(-1, -2) @ tails
    origins = []
    for turn, write, ending in zip(turns.unbind(2), writes.unbind(2), ends, strict=True):
        origins.append(weights)
        weights = write + weights @ turn
        weights = weights.detach() if ending else weights
    origin = torch.stack(origins, dim=2).transpose(-1, -2)
    return written - answered @ origin, origin, weights


def _window_written(
    keys: Tensor, updates: Tensor, decays: Tensor, weights: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """W_0 of every tile transposed, and the weights after the last, where U is given."""
    tails = _each_pair(decays[..., -1:, :], window)[..., 0, 1:, None] * keys
    writes = updates.transpose(-1, -2) @ tails
    origins = []
    for left, write in zip(decays[..., -1, :1, None].unbind(2), writes.unbind(2), strict=True):
        origins.append(weights)
        weights = left * weights + write
    return torch.stack(origins, dim=2).transpose(-1, -2), weights


def _window_read(queries: Tensor, keys: Tensor, updates: Tensor, origin: Tensor, rows: Tensor) -> Tensor:
    """What weights return that hold `rows [..., R, 1 + C w]` of W_0 and of every pair's write."""
    scores = (queries @ keys.transpose(-1, -2)) * rows[..., 1:]
    return rows[..., :1] * (queries @ origin) + scores @ updates


def _window_erased(decays: Tensor, window: int, erase: str) -> Tensor:
    """What the weights that a token's pairs erase from hold of earlier writes, `[..., C w, 1 + C w]`."""
    if erase == "retained":  # what this token writes itself is not there yet
        rows = decays[..., 1:, :].tril()
    else:
        rows = decays[..., :-1, :]
    return _each_pair(rows, window).repeat_interleave(window, -2)


def _each_pair(rows: Tensor, window: int) -> Tensor:
    """Rows of the decay matrix with a column for each pair of a token, `[..., R, 1 + C w]`."""
    return torch.cat((rows[..., :1], rows[..., 1:].repeat_interleave(window, -1)), dim=-1)
