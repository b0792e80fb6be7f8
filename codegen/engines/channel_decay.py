"""Scores between the tokens of a tile where every channel of the key side has a gate of its own.

For a reader z_t, a writer p_i and the gates r, each `[D]`, an engine needs for all i < t of a tile

    S_ti = sum_c z_t[c] p_i[c] prod_{i < j < t} r_j[c]

(Nested Learning reference, engines E2 and E4).  The products do not factor out of the sum, and the usual
factors A_t and 1 / A_i of running products overflow where gates are small.  So a tile is halved again and
again: for t in the right and i in the left half of a block, with m the first token of the right half,

    prod_{i < j < t} r_j = (prod_{i < j < m} r_j) (prod_{m <= j < t} r_j)

which is one factor for the writer and one for the reader, and the scores of that quarter are one matrix
product.  From blocks of one token up to the tile, log2(C) products, all that ever happens to gates is that
they are multiplied: no factor exceeds 1, nothing is divided and no logarithm is taken, so closed gates are
exact, and so are their gradients.  What the last level leaves is what the tile's boundaries need: readers
times the product of all gates before them, writers times that of all gates after them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class ChannelScores(torch.autograd.Function):
    """`channel_scores` for a tile of 2^n tokens; keeps its inputs alone, and halves again in the backward.

    The backward consists of ordinary operations on them, so that it can itself be differentiated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(readers: Tensor, writers: Tensor, retain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, p, total = readers.unsqueeze(-3), writers.unsqueeze(-3), retain
        scores = z.new_zeros(*z.shape[:-3], z.shape[-2], p.shape[-2])  # one token a block, [..., C, R, P]
        while total.shape[-2] > 1:
            halves, (z, p, total) = ChannelScores.merged(z, p, total)
            scores = ChannelScores.stacked(scores, ChannelScores.crossed(halves[0], halves[1]))
        return scores.squeeze(-3), z.squeeze(-4), p.squeeze(-4), total.squeeze(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        readers, writers, retain = ctx.saved_tensors
        z, p, total = readers.unsqueeze(-3), writers.unsqueeze(-3), retain
        levels = []
        while total.shape[-2] > 1:
            halves, (z, p, total) = ChannelScores.merged(z, p, total)
            levels.append(halves)
        scores, dz, dp, dt = grads[0].unsqueeze(-3), grads[1].unsqueeze(-4), grads[2].unsqueeze(-4), grads[3]
        dt = dt.unsqueeze(-2)
        for z_right, p_left, left, right in reversed(levels):
            scores, crossed = ChannelScores.unstacked(scores)
            dz_left, dz_right = dz.chunk(2, dim=-3)
            dp_left, dp_right = dp.chunk(2, dim=-3)
            to_left = dt * right + (dz_right * z_right).sum((-3, -2))
            to_right = dt * left + (dp_left * p_left).sum((-3, -2))
            to_reader = (crossed @ p_left.flatten(-3, -2)).view_as(z_right)
            to_writer = (crossed.transpose(-1, -2) @ z_right.flatten(-3, -2)).view_as(p_left)
            dz_right = torch.addcmul(to_reader, dz_right, left[..., None, None, :])
            dp_left = torch.addcmul(to_writer, dp_left, right[..., None, None, :])
            dz = torch.stack((dz_left, dz_right), dim=-4).flatten(-5, -4)
            dp = torch.stack((dp_left, dp_right), dim=-4).flatten(-5, -4)
            dt = torch.stack((to_left, to_right), dim=-2).flatten(-3, -2)
        return dz.squeeze(-3), dp.squeeze(-3), dt

    @staticmethod
    def merged(
        readers: Tensor, writers: Tensor, total: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Pairs of blocks as blocks of twice the size.

        Args:
            readers: times the gates from their block's start, `[..., blocks, tokens, R, D]`.
            writers: times the gates to their block's end, `[..., blocks, tokens, P, D]`.
            total: the product of a block's gates, `[..., blocks, D]`.

        Returns:
            What meets at the seams: readers of the right blocks, writers of the left ones, the totals of
            either; and readers, writers and totals of the larger blocks.
        """
        z_left, z_right = readers.unflatten(-4, (-1, 2)).unbind(-4)
        p_left, p_right = writers.unflatten(-4, (-1, 2)).unbind(-4)
        left, right = total.unflatten(-2, (-1, 2)).unbind(-2)
        readers = torch.cat((z_left, z_right * left[..., None, None, :]), dim=-3)
        writers = torch.cat((p_left * right[..., None, None, :], p_right), dim=-3)
        return (z_right, p_left, left, right), (readers, writers, left * right)

    @staticmethod
    def crossed(readers: Tensor, writers: Tensor) -> Tensor:
        """Scores between readers of the right half and writers of the left, `[..., tokens R, tokens P]`."""
        return readers.flatten(-3, -2) @ writers.flatten(-3, -2).transpose(-1, -2)

    @staticmethod
    def stacked(scores: Tensor, crossed: Tensor) -> Tensor:
        """Scores of pairs of blocks with what crosses their seam below the diagonal."""
        left, right = scores.unflatten(-3, (-1, 2)).unbind(-3)
        upper = torch.cat((left, torch.zeros_like(crossed)), dim=-1)
        return torch.cat((upper, torch.cat((crossed, right), dim=-1)), dim=-2)

    @staticmethod
    def unstacked(scores: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `stacked`."""
        upper, lower = scores.chunk(2, dim=-2)
        crossed, right = lower.chunk(2, dim=-1)
        return torch.stack((upper.chunk(2, dim=-1)[0], right), dim=-3).flatten(-4, -3), crossed


def channel_scores(readers: Tensor, writers: Tensor, retain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of every reader with every writer before it, and what reaches the tile's boundaries.

    Args:
        readers: R for each token, `[..., C, R, D]`.
        writers: P for each token, `[..., C, P, D]`.
        retain: `[..., C, D]` in [0, 1].

    Returns:
        `[..., R, P, C, C]`, strictly lower triangular: the gates of both tokens are left out; readers times
        all gates of the tile before them and writers times all after them, shaped as they came; and the
        product of all gates, `[..., D]`.
    """
    dtype, tokens = readers.dtype, retain.shape[-2]
    wide = torch.promote_types(dtype, torch.float32)
    missing = (1 << (tokens - 1).bit_length()) - tokens
    gates = retain.to(wide)
    if missing:  # up to a power of two, with tokens that neither read, write nor forget
        readers, writers = (F.pad(x, (0, 0, 0, 0, 0, missing)) for x in (readers, writers))
        gates = F.pad(gates, (0, 0, 0, missing), value=1.0)
    made: tuple[Tensor, ...] = ChannelScores.apply(readers.to(wide), writers.to(wide), gates)  # type: ignore[assignment]
    scores, begun, ended = (x.to(dtype) for x in made[:3])
    sizes = gates.shape[-2], readers.shape[-2], writers.shape[-2]
    pairs = scores.unflatten(-1, (sizes[0], sizes[2])).unflatten(-3, (sizes[0], sizes[1]))
    pairs = pairs.movedim((-3, -1), (-4, -3))[..., :tokens, :tokens]
    return pairs, begun[..., :tokens, :, :], ended[..., :tokens, :, :], made[3].to(dtype)
