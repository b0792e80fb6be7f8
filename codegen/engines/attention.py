"""Softmax attention: the memory that keeps every pair and solves for the read in closed form.

y_t = sum_i softmax_i(scale k_i . q_t) v_i over i <= t, or over t - window < i <= t, is the minimiser over y
of sum_i exp(scale k_i . q_t) |v_i - y|^2, the Nadaraya-Watson estimate (Nested Learning, eqs. 62-63).
Its state is the cache of pairs.  What is written, a pair, does not depend on the memory, so `first_order`
is the full gradient; under `stop` pairs are constants, and under `through N tokens` those before the last
cut.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.tiles import opened_at, tokens_between_cuts, with_phase


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    state: dict[str, Tensor] | None = None,
    *,
    window: int | None = None,
    sinks: int = 0,
    scale: float = 1.0,
    gradient: str | tuple[str, int] = "through",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Causal softmax attention over the carried cache and the new tokens.

    Args:
        query: `[B, H, T, Dk]`.
        key: `[B, G, T, Dk]`; `G` divides `H`, and each key head serves `H / G` query heads.
        value: `[B, G, T, Dv]`.
        state: `{"key": [B, G, P, Dk], "value": [B, G, P, Dv]}`, the pairs of earlier tokens,
            and `phase`, the tokens since the last cut, where the gradient is cut.
        window: how many tokens a query sees, itself included; `None` means all.
        sinks: how many of the first tokens stay visible behind the window.
        scale: factor on the logits; 1 because a memory's query is used as given.
        gradient: `through` or `first_order`; `stop`, the pairs are constants of the outer loss;
            `("through", N)`, they go on as constants after every N tokens.

    Returns:
        The read `[B, H, T, Dv]`, and the cache: all pairs, or the first `sinks` and the last `window - 1`.
    """
    if cut_every := tokens_between_cuts(gradient):
        return _attention_by_cuts(
            query, key, value, state, cut_every, window=window, sinks=sinks, scale=scale
        )
    if gradient == "stop":
        key, value = key.detach(), value.detach()
    tokens = query.shape[2]
    if state is not None:
        key = torch.cat((state["key"], key), dim=2)
        value = torch.cat((state["value"], value), dim=2)
    total = key.shape[2]
    begin = 0 if window is None else max(0, total - window + 1)
    cache = {"key": _kept(key, begin, sinks), "value": _kept(value, begin, sinks)}
    if tokens == 0:
        return query.new_zeros(*query.shape[:3], value.shape[-1]), cache

    sees_all = window is None or total <= window
    causal = sees_all and tokens == total  # the kernel's own mask is the fast path
    mask = (
        None if causal or (sees_all and tokens == 1) else _visible(tokens, total, window, sinks, query.device)
    )
    read = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return read, cache


def _attention_by_cuts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    state: dict[str, Tensor] | None,
    cut_every: int,
    *,
    window: int | None,
    sinks: int,
    scale: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`attention` from cut to cut, a call for each piece."""
    phase, tokens = opened_at(state), query.shape[2]
    pairs = None if state is None else {name: state[name] for name in ("key", "value")}
    reads = []
    edges = [0, *range(cut_every - phase % cut_every, tokens, cut_every), tokens]
    for begin, end in itertools.pairwise(edges):
        q, k, v = query[:, :, begin:end], key[:, :, begin:end], value[:, :, begin:end]
        read, pairs = attention(q, k, v, pairs, window=window, sinks=sinks, scale=scale)
        reads.append(read)
        if end > begin and (phase + end) % cut_every == 0:
            pairs = {name: x.detach() for name, x in pairs.items()}
    assert pairs is not None
    return torch.cat(reads, dim=2), with_phase(pairs, {}, phase + tokens, 1, cut_every)


def _kept(pairs: Tensor, begin: int, sinks: int) -> Tensor:
    """The first `sinks` of `[B, G, total, d]`, and all from `begin` on."""
    if min(sinks, begin) == 0:
        return pairs[:, :, begin:]
    return torch.cat((pairs[:, :, : min(sinks, begin)], pairs[:, :, begin:]), dim=2)


def _visible(tokens: int, total: int, window: int | None, sinks: int, device: torch.device) -> Tensor:
    """Which of `total` pairs each of the last `tokens` queries may see, bool `[tokens, total]`.

    Between sinks and window pairs may be missing: only the sinks stand before the gap, and their age does not
    count.
    """
    query_at = torch.arange(total - tokens, total, device=device)[:, None]
    place = torch.arange(total, device=device)
    age = query_at - place
    return age >= 0 if window is None else (age >= 0) & ((age < window) | (place < sinks))
