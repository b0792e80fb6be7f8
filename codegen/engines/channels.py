"""Matrix memories that keep, write and erase by channel: gated linear attention, KDA, RWKV-7.

Three forms of one recurrence (Nested Learning reference, engines E2, E4 and E4'), with r the retention and
e the rate, each one number or one for each channel of the key side, a what is erased along and b into:

    E2     W_t = W_{t-1} Diag(r_t) + v_t (e_t k_t)^T
    E4     W_t = W_{t-1} Diag(r_t) + (v_t - x_t) (e_t k_t)^T,                  b = k
    E4'    W_t = W_{t-1} Diag(r_t) + v_t (e_t k_t)^T - x_t (e_t b_t)^T

with x_t = W_{t-1} Diag(r_t) a_t where the erasure comes after forgetting (`retained`), and x_t = W_{t-1}
a_t where it comes before (`current`).  The first is the second with r_t * a_t in place of a_t, and a read
after the write is a read of W_{t-1} with r_t * q_t and what the own write adds.  So all that is ever asked
of the past are products with W_{t-1}.  In a tile that starts from W_0, with S(z, p) the scores of
`channel_decay` (or of `decay`, for a gate of one number) and A the products of all gates before a token,

    x = (a * A) W_0^T + S(a, k) V - S(a, b) x

is a unit lower-triangular system, which for b = k is (I + S(a, k)) (V - x) = V - (a * A) W_0^T.  Its
solution is affine in W_0; `carried` runs the tiles, forward and backward.

With less of the outer gradient the tokens' answers x are found first, as reads of a = k or `along` before
the write, in a pass in which all but a is a constant; then what is written is known, and the first form
reads it, for E4' as two pairs a token, v (e k)^T and -x (e b)^T.  Under `first_order` x is live in a alone,
since the weights inside the gradient, and what they forgot, are constants; under `stop` all that is written
is one, and only W_0, r and the queries are live.

With the gradient frozen at the weights W_b of a period's start (E5 with r by channel),

    W_t = W_{t-1} Diag(r_t) + (v_t - W_b k_t) (e_t k_t)^T

there is nothing to solve: the first form with known values, once W_b is.  With T the rows e_i k_i times all
gates after them, and K the keys, a tile passes W_C = W_0 Diag(A_C) + V^T T - W_b K^T T on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.carried import carried_tiles
from nldsl.codegen.engines.channel_decay import channel_scores
from nldsl.codegen.engines.decay import decay_matrix
from nldsl.codegen.engines.normalised import normalised
from nldsl.codegen.engines.tiles import (
    cut,
    joined,
    marked_tiling,
    opened_at,
    start_weights,
    tokens_between_cuts,
    with_phase,
)


def channel_hebbian(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    read: str = "after",
    period: int = 1,
    normalise: bool = False,
    gradient: str | tuple[str, int] = "through",
    tile: int = 32,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Write `value_t (rate_t key_t)^T`, keep `retain_t` of each channel, read with the query (E2).

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]` or `[B, H, T, Dk]`, 1 where not given.
        retain: as `rate`, in [0, 1].
        state: `W [B, H, Dv, Dk]`, with `normalise` also `z [B, H, Dk]`; for a period also the `_start` of
            each, and `phase`, which cuts of the gradient need too.
        start: weights before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros where not given.
        read: `after` or `before` the own write, or `boundary`, the start of the period.
        period: tokens between the points that boundary reads see.
        normalise: divide by z_t . q_t, z_t = r_t z_{t-1} + e_t k_t; a read whose divisor is 0 is not divided.
        gradient: `through` or `first_order`; `stop`, what a token adds is a constant of the outer loss;
            `("through", N)`, the weights go on as values without a past after every N tokens.
        tile: tokens worked on at once; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    if gradient == "stop":
        key, value, rate = key.detach(), value.detach(), None if rate is None else rate.detach()
    if normalise:  # the divisor is one more value channel, of ones
        gates: dict[str, Any] = {"rate": rate, "retain": retain, "gradient": gradient}
        return normalised(
            channel_hebbian, query, key, value, state, start, read=read, period=period, tile=tile, **gates
        )
    pairs = ((by_channel(rate, key), value),)
    return _channel_sums(
        query, pairs, retain, state, start=start, read=read, period=period, gradient=gradient, tile=tile
    )


def channel_delta(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    erase: Tensor | tuple[Tensor, Tensor] | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    anchor: str = "retained",
    read: str = "after",
    gradient: str | tuple[str, int] = "through",
    tile: int = 32,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Keep by channel, erase along one direction into another, write the value at the key (E4, E4').

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, H, T, Dk]`.
        value: `[B, H, T, Dv]`.
        rate: `[B, H, T]` or `[B, H, T, Dk]`, 1 where not given; scales what is written and what is erased.
        retain: as `rate`, in [0, 1].
        erase: what is forgotten along, `[B, H, T, Dk]`, and into; the key where not given.
        state: `{"W": [B, H, Dv, Dk]}`, and `phase` where the gradient is cut.
        start: weights before the first token, `[H, Dv, Dk]` or `[B, H, Dv, Dk]`; zeros where not given.
        anchor: `retained`, erase what is left after forgetting, or `current`, what was there before.
        read: `after` or `before` the own write.
        gradient: `through`; `first_order`, the weights that are erased from are constants of the outer loss;
            `stop`, all that a token adds is; `("through", N)`, the weights go on as values without a past
            after every N tokens.
        tile: tokens a solve spans; never changes the function.

    Returns:
        The read `[B, H, T, Dv]` and the state after the last token.
    """
    weights = start_weights(start, key, value) if state is None else state["W"]
    phase, tokens, cut_every = opened_at(state), key.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        return torch.zeros_like(value), with_phase({"W": weights}, {}, phase, 1, cut_every)
    along, into = erase if isinstance(erase, tuple) else (key if erase is None else erase, key)
    apart = into is not key
    if gradient in ("first_order", "stop"):
        answers = _constant_answers(key, value, rate, retain, erase, weights, anchor, tile)
        written, erased = by_channel(rate, key), by_channel(rate, into)
        pairs = ((written, value), (erased, -answers)) if apart else ((written, value - answers),)
        if gradient == "stop":
            pairs = tuple((place.detach(), content.detach()) for place, content in pairs)
        return _channel_sums(query, pairs, retain, state, start=start, read=read, tile=tile)
    tiles, _, ends = marked_tiling(tokens, tile, 0, cut_every, phase)
    queries, values, along = (_channel_tiles(cut(x, tiles)) for x in (query, value, along))
    gates = _channel_tiles(_cut_gates(retain, key, tiles))
    written = _channel_tiles(cut(by_channel(rate, key), tiles))
    erased = _channel_tiles(cut(by_channel(rate, into), tiles)) if apart else written

    asking = torch.stack(
        (
            by_channel(gates, along) if anchor == "retained" else along,
            by_channel(gates, queries) if read == "after" else queries,
        ),
        dim=-2,
    )
    telling = torch.stack((erased, written), dim=-2) if apart else erased.unsqueeze(-2)
    scores, begun, ended, total = _tile_scores(asking, telling, gates)
    # of [along, query] with [into, key]
    (system, *pushed), (answers, *shown) = (rows.unbind() for rows in scores.unbind())
    tails, *written_tails = ended.unbind(-2)
    if read == "after":
        answers = answers + torch.diag_embed((queries * erased).sum(-1))
    if apart:  # what goes into b is -x, and the values are written beside it
        targets, added = -(pushed[0] @ values), values.transpose(-1, -2) @ written_tails[0]
    else:
        targets, added = values, weights.new_zeros(1, 1, 1, 1)
    cuts = tuple(ends) if cut_every else ()
    reads, last = carried_tiles(
        begun, targets, system, answers, tails, total, added, weights.flatten(0, 1), cuts
    )
    if apart:
        reads = reads + shown[0] @ values
        reads = reads + (queries * written).sum(-1, keepdim=True) * values if read == "after" else reads
    reads = reads.unflatten(1, weights.shape[:2]).movedim(0, 2)
    new = with_phase({"W": last.view_as(weights)}, {}, phase + tokens, 1, cut_every)
    return joined(reads, tiles), new


def channel_frozen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rate: Tensor | None = None,
    retain: Tensor | None = None,
    state: dict[str, Tensor] | None = None,
    *,
    start: Tensor | None = None,
    period: int,
    read: str = "after",
    gradient: str | tuple[str, int] = "through",
    tile: int = 32,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Keep and write by channel, steps on the squared error with gradients of the period's start (E5).

    Args and results as `channel_hebbian`, besides:
        state: `W` and `W_start` `[B, H, Dv, Dk]`, and `phase`.
        period: tokens for which the gradient's weights stand still, at least 2.
        read: `after` or `before` the own write, or `boundary`, the weights of the period's start.
        gradient: as `channel_hebbian`, but under `first_order` the weights inside the gradient are constants
            of the outer loss.
    """
    if gradient == "stop":
        key, value, rate = key.detach(), value.detach(), None if rate is None else rate.detach()
    return _channel_sums(
        query,
        ((by_channel(rate, key), value),),
        retain,
        state,
        start=start,
        read=read,
        period=period,
        gradient=gradient,
        tile=tile,
        recalled=key,
    )


def _channel_sums(
    query: Tensor,
    pairs: tuple[tuple[Tensor, Tensor], ...],
    retain: Tensor | None,
    state: dict[str, Tensor] | None,
    *,
    start: Tensor | None,
    read: str,
    period: int = 1,
    gradient: str | tuple[str, int] = "through",
    tile: int = 32,
    recalled: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reads of W_t = W_{t-1} Diag(r_t) + the sum of a token's pairs, content times place.

    Args:
        query: `[B, H, T, Dk]`.
        pairs: places `[B, H, T, Dk]` and contents `[B, H, T, Dv]`.
        retain: and the next eight, as `channel_hebbian` takes them.
        state: see there.
        start: see there.
        read: see there.
        period: see there.
        gradient: cuts, and whether weights that answer are constants; what is written comes as it is to be.
        tile: see there.
        recalled: keys `[B, H, T, Dk]` whose answers by the weights of the period's start are taken off the
            content of the only pair.
    """
    weights = start_weights(start, query, pairs[0][1]) if state is None else state["W"]
    anchor = weights if state is None else state.get("W_start", weights)
    phase, tokens, cut_every = opened_at(state), query.shape[2], tokens_between_cuts(gradient)
    if tokens == 0:
        none = torch.zeros_like(pairs[0][1])
        return none, with_phase({"W": weights}, {"W": anchor}, phase, period, cut_every)
    tiles, opens, ends = marked_tiling(tokens, tile, period if period > 1 else 0, cut_every, phase)
    queries = cut(query, tiles)
    places, contents = ([cut(one, tiles) for one in side] for side in zip(*pairs, strict=True))
    gates = _cut_gates(retain, query, tiles)
    boundary = read == "boundary" and period > 1
    asking = by_channel(gates, queries) if read == "after" else queries
    readers = asking.unsqueeze(-2)[..., : 0 if boundary else 1, :]  # boundary reads ask nothing of their tile
    scores, begun, ended, total = _tile_scores(readers, torch.stack(places, dim=-2), gates)

    tails = ended.unbind(-2)  # [B, H, N, C, Dk] each
    held = gradient in ("first_order", "stop")
    rows, columns = torch.cat(contents, dim=-2), torch.cat(tails, dim=-2)
    writes = (rows.transpose(-1, -2) @ columns).unbind(2)  # [B, H, Dv, Dk] each
    kept = total.unsqueeze(-2).unbind(2)
    keys = None if recalled is None else cut(recalled, tiles)
    pulls = () if keys is None else (keys.transpose(-1, -2) @ tails[0]).unbind(2)
    origins, anchors = [], []
    for n, (opening, ending) in enumerate(zip(opens, ends, strict=True)):
        anchor = weights if opening else anchor
        origins.append(weights)
        anchors.append(anchor)
        weights = kept[n] * weights + writes[n]
        if pulls:
            weights = weights - (anchor.detach() if held else anchor) @ pulls[n]
        weights = weights.detach() if ending else weights

    phase += tokens
    anchor = weights if phase % period == 0 else anchor
    new = with_phase({"W": weights}, {"W": anchor}, phase, period, cut_every)
    if boundary:
        return joined(queries @ torch.stack(anchors, dim=2).transpose(-1, -2), tiles), new
    if keys is not None:
        fixed = torch.stack(anchors, dim=2).transpose(-1, -2)
        contents = [contents[0] - keys @ (fixed.detach() if held else fixed)]
    reads = begun.squeeze(-2) @ torch.stack(origins, dim=2).transpose(-1, -2)  # [B, H, N, C, Dv]
    for place, content, score in zip(places, contents, scores[0], strict=True):
        reads = reads + score @ content
        if read == "after":
            reads = reads + (queries * place).sum(-1, keepdim=True) * content
    return joined(reads, tiles), new


def _constant_answers(
    key: Tensor,
    value: Tensor,
    rate: Tensor | None,
    retain: Tensor | None,
    erase: Tensor | tuple[Tensor, Tensor] | None,
    weights: Tensor,
    anchor: str,
    tile: int,
) -> Tensor:
    """What constant weights answer to what is erased along, `[B, H, T, Dv]`; arguments as `channel_delta`."""
    along = key if erase is None else erase[0] if isinstance(erase, tuple) else erase
    forgotten = None if retain is None else retain.detach()
    answers, _ = channel_delta(
        by_channel(forgotten, along) if anchor == "retained" else along,
        key.detach(),
        value.detach(),
        None if rate is None else rate.detach(),
        forgotten,
        (along.detach(), erase[1].detach()) if isinstance(erase, tuple) else along.detach(),
        {"W": weights.detach()},
        anchor=anchor,
        read="before",
        tile=tile,
    )
    return answers


def _channel_tiles(x: Tensor) -> Tensor:
    """`[B, H, N, ...]` to `[N, B * H, ...]`, so that a tile lies in one piece."""
    return x.movedim(2, 0).flatten(1, 2).contiguous()


def by_channel(gate: Tensor | None, content: Tensor) -> Tensor:
    """A gate `[..., T]` or `[..., T, D]`, 1 where it is not given, times content `[..., T, D]`."""
    if gate is None:
        return content
    return (gate if gate.dim() == content.dim() else gate.unsqueeze(-1)) * content


def _cut_gates(retain: Tensor | None, key: Tensor, tiles: tuple[int, int, int]) -> Tensor:
    """The retention in tiles, `[B, H, N, C]` or `[B, H, N, C, Dk]`; padding keeps all."""
    return cut(key.new_ones(key.shape[:3]) if retain is None else retain, tiles, 1.0)


def _tile_scores(readers: Tensor, writers: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`channel_scores`, and the same for gates of one number, `[..., C]`.

    Args:
        readers: `[..., C, R, Dk]`.
        writers: `[..., C, P, Dk]`.
        gates: `[..., C]` or `[..., C, Dk]`.
    """
    if gates.dim() == readers.dim() - 1:
        return channel_scores(readers, writers, gates)
    decays = decay_matrix(gates)  # [..., C + 1, C + 1]
    before = decays[..., :-1, :]
    asked, told = readers.movedim(-2, 0).unsqueeze(1), writers.movedim(-2, 0)
    scores = (asked @ told.transpose(-1, -2)) * before[..., 1:]
    total = decays[..., -1, :1].expand(*gates.shape[:-1], readers.shape[-1])
    return scores, readers * before[..., :1, None], writers * decays[..., -1, 1:, None, None], total
