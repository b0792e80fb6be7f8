"""The delta rule on long windows: what a window teaches, summed once instead of pair by pair.

With G_t = sum_i c_i k_i k_i^T and H_t = sum_i c_i v_i k_i^T over the window of token t, the write of
`windows` is linear in the weights it erases from:

    W_t = r_t W_{t-1} - e_t (X G_t - H_t),    X = r_t W_{t-1} (retained) or W_{t-1} (current)

which is one product of `[Dv, Dk]` with `[Dk, Dk]` a token, however long the window (Nested Learning
reference, engine E7, with the sums of E1's linear scan taken over a window).

The sums are taken without subtracting: in blocks of w tokens, a window is the end of one block and the
beginning of the next.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.tiles import tokens_between_cuts


def long_window_delta(
    query: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    rate: Tensor,
    retain: Tensor | None,
    weights: Tensor,
    *,
    before: int,
    window: int,
    erase: str,
    read: str,
    gradient: str | tuple[str, int],
    phase: int,
) -> tuple[Tensor, Tensor]:
    """Step through tokens by the sums of their windows.

    Args:
        query: `[B, H, T, Dk]`, at least one token.
        pairs: keys `[B, H, P + T, Dk]`, values `[B, H, P + T, Dv]` and weights `[B, H, P + T]` of the pairs
            in any window, those of earlier tokens first.
        rate: `[B, H, T]`.
        retain: `[B, H, T]`, 1 where not given.
        weights: before the first token, `[B, H, Dv, Dk]`.
        before: P.
        window: how many of the last tokens a write is for.
        erase: `retained` or `current`.
        read: `after` or `before` the own write.
        gradient: as `window_delta`.
        phase: tokens seen since the outer gradient was last cut.

    Returns:
        The read `[B, H, T, Dv]` and the weights after the last token.
    """
    key, value, weight = pairs
    counted = weight.unsqueeze(-1) * key
    grams = sums_of_windows(counted.unsqueeze(-1) * key.unsqueeze(-2), before, window)
    shown = sums_of_windows(value.unsqueeze(-1) * counted.unsqueeze(-2), before, window)
    rates = rate[..., None, None]
    kept = torch.ones_like(rates) if retain is None else retain[..., None, None]
    left = kept if erase == "retained" else torch.ones_like(kept)
    turns, writes = kept * _identity(grams) - rates * left * grams, rates * shown
    if gradient in ("first_order", "stop"):  # what a write looks at is a constant
        with torch.no_grad():
            looked = torch.stack(_turned(turns, writes, weights, 0, 0)[0], dim=2)
        writes = writes - rates * left.detach() * (looked @ grams)
        writes = writes.detach() if gradient == "stop" else writes
        turns = kept * _identity(grams)
    found, made, last = _turned(turns, writes, weights, tokens_between_cuts(gradient), phase)
    seen = torch.stack(made if read == "after" else found, dim=2)
    return (seen @ query.unsqueeze(-1)).squeeze(-1), last


def sums_of_windows(terms: Tensor, before: int, window: int) -> Tensor:
    """Sums of the last `window` of `[B, H, P + T, ...]` at each of the last T places.

    Args:
        terms: summed over axis 2.
        before: P, how many places are summed over only.
        window: how many of the last places, itself included.
    """
    places = terms.shape[2]
    blocks = -(-places // window)
    widths = [0, 0] * (terms.dim() - 3)
    blocked = F.pad(terms, (*widths, 0, blocks * window - places)).unflatten(2, (blocks, window))
    in_block = blocked.unbind(3)
    begun = torch.stack(list(accumulate(in_block)), dim=3)
    if blocks > 1 and window > 1:  # what the window still holds of the block before
        ends = torch.stack(list(accumulate(one[:, :, :-1] for one in in_block[:0:-1]))[::-1], dim=3)
        begun = begun + F.pad(ends, (*widths, 0, 1, 1, 0))
    return begun.flatten(2, 3)[:, :, before:places]


def _turned(
    turns: Tensor, writes: Tensor, weights: Tensor, cut_every: int, phase: int
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """W_t = W_{t-1} `turns` + `writes`: the weights before each token, after each, and what goes on."""
    lead, running = weights.shape[:2], weights.flatten(0, 1)
    found, made = [], []
    steps = zip(turns.flatten(0, 1).unbind(1), writes.flatten(0, 1).unbind(1), strict=True)
    for count, (turn, write) in enumerate(steps, start=phase + 1):
        found.append(running.unflatten(0, lead))
        running = torch.baddbmm(write, running, turn)
        made.append(running.unflatten(0, lead))
        # After the token, whose own read still reaches what it wrote.
        running = running.detach() if cut_every and count % cut_every == 0 else running
    return found, made, running.unflatten(0, lead)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
