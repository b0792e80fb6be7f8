"""Several streams as one, and one stream in pieces: what blocks are made of beside their parts.

Streams `[B, T, d]` are joined in time: what belongs to one position stands side by side, so that a causal
part sees of every stream only what was there by then.  (Titans draws persistent tokens, then all that was
recalled for a segment, then the segment; in that order its first token would see what the last one
recalled.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def persistent_tokens(count: int, width: int) -> nn.Parameter:
    """Learned tokens `[count, width]` that stand before a stream (Titans)."""
    return nn.Parameter(0.02 * torch.randn(count, width))


def join_streams(streams: tuple[Tensor, ...], prefix: Tensor | None = None) -> Tensor:
    """Streams `[B, T, d]` position by position, `[B, n * T, d]`, behind a `prefix` `[P, d]` where given."""
    joined = torch.stack(streams, dim=2).flatten(1, 2)
    if prefix is None:
        return joined
    return torch.cat((prefix.to(joined).expand(joined.shape[0], -1, -1), joined), dim=1)


def last_stream(joined: Tensor, streams: int, tokens: int) -> Tensor:
    """Of `[B, P + streams * tokens, d]` the tokens of the stream that was listed last, `[B, tokens, d]`."""
    before = joined.shape[1] - streams * tokens
    return joined[:, before + streams - 1 :: streams]


def by_segments(
    part: Callable[..., tuple[Tensor, dict[str, Any], dict[str, Any]]],
    streams: tuple[Tensor, ...],
    length: int,
    state: dict[str, Any] | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Run a causal part segment by segment: what is `inside` begins anew in each, what is carried goes on.

    Args:
        part: takes a piece of each stream, the state inside the segment and the carried one; gives the
            piece of the result and both states.  A piece ends with its segment or with the input.
        streams: `[B, T, d]` each.
        length: tokens of a segment.
        state: what an earlier call returned; `phase` counts the tokens of the open segment.

    Returns:
        The result `[B, T, d]` and the new state.
    """
    state = state or {"inside": {}, "carried": {}}
    inside, carried = state["inside"], state["carried"]
    phase, tokens = int(state.get("phase", 0)), streams[0].shape[1]
    if tokens == 0:
        nothing, _, _ = part(*streams, inside, carried)
        return nothing, state
    pieces, begin = [], 0
    while begin < tokens:
        inside = inside if phase else {}
        end = min(tokens, begin + length - phase)
        piece, inside, carried = part(*(x[:, begin:end] for x in streams), inside, carried)
        pieces.append(piece)
        phase = (phase + end - begin) % length
        begin = end
    return torch.cat(pieces, dim=1), {"inside": inside, "carried": carried, "phase": torch.as_tensor(phase)}
