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

from nldsl.codegen.engines.erasing import closed_form_fits


class ChannelScores(torch.autograd.Function):
    """`channel_halves` in buffers of its own, for a tile of 2^n tokens; keeps what meets at every seam."""

    @staticmethod
    def forward(readers: Tensor, writers: Tensor, retain: Tensor) -> tuple[Tensor, ...]:
        size, width = retain.shape[-2:]
        tiles, (asks, tells) = retain.shape[:-2].numel(), (readers.shape[-2], writers.shape[-2])
        z = readers.clone(memory_format=torch.contiguous_format)
        p = writers.clone(memory_format=torch.contiguous_format)
        scores = z.new_zeros(tiles, size * asks, size * tells)
        total, seams, half = retain.reshape(-1, width).clone(), [], 1
        while half < size:
            pairs = tiles * size // (2 * half)
            right = z.view(pairs, 2, half, asks, width)[:, 1]
            left = p.view(pairs, 2, half, tells, width)[:, 0]
            total = total.view(pairs, 2, width)
            seams += [right.clone(), left.clone(), total]
            crossed = torch.bmm(seams[-3].flatten(1, 2), seams[-2].flatten(1, 2).transpose(-1, -2))
            quarters = channel_quarters(scores, half * asks, half * tells)
            quarters.copy_(crossed.view(quarters.shape))
            right.mul_(total[:, 0, None, None])
            left.mul_(total[:, 1, None, None])
            total, half = total[:, 0] * total[:, 1], 2 * half
        lead = retain.shape[:-2]
        return scores.view(*lead, *scores.shape[1:]), z, p, total.view(*lead, width), *seams

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[4:])
        ctx.save_for_backward(*inputs, *output[4:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        inputs, seams = ctx.saved_tensors[:3], list(ctx.saved_tensors[3:])
        if torch.is_grad_enabled():
            return torch.func.vjp(channel_halves, *inputs)[1](grads[:4])
        readers, writers, retain = inputs
        size, width = retain.shape[-2:]
        asks, tells = readers.shape[-2], writers.shape[-2]
        of_scores = grads[0].reshape(retain.shape[:-2].numel(), size * asks, size * tells)
        dz = grads[1].clone(memory_format=torch.contiguous_format)
        dp = grads[2].clone(memory_format=torch.contiguous_format)
        of_total, half = grads[3].reshape(-1, width), size
        while half > 1:
            half //= 2
            total, p, z = seams.pop(), seams.pop(), seams.pop()
            quarters = channel_quarters(of_scores, half * asks, half * tells)
            crossed = quarters.reshape(len(total), half * asks, half * tells)
            right = dz.view(len(total), 2, half, asks, width)[:, 1]
            left = dp.view(len(total), 2, half, tells, width)[:, 0]
            gates = torch.stack(
                (
                    torch.addcmul((right * z).sum((1, 2)), of_total, total[:, 1]),
                    torch.addcmul((left * p).sum((1, 2)), of_total, total[:, 0]),
                ),
                dim=1,
            )
            to_right = torch.bmm(crossed, p.flatten(1, 2)).view_as(z)
            to_left = torch.bmm(crossed.transpose(-1, -2), z.flatten(1, 2)).view_as(p)
            right.mul_(total[:, 0, None, None]).add_(to_right)
            left.mul_(total[:, 1, None, None]).add_(to_left)
            of_total = gates.flatten(0, 1)
        return dz, dp, of_total.view_as(retain)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """One more batch axis is more tiles; what only the backward reads has them all in its first axis."""
        whole = [
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(inputs, in_dims, strict=True)
        ]
        outputs = ChannelScores.apply(*whole)
        split = [x if n < 4 else x.unflatten(0, (info.batch_size, -1)) for n, x in enumerate(outputs)]
        return tuple(split), (0,) * len(split)


@torch.compiler.disable
def _halved_closed(readers: Tensor, writers: Tensor, retain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`channel_halves` by `ChannelScores`, around which a compiler steps."""
    found: Any = ChannelScores.apply(readers, writers, retain)
    return found[0], found[1], found[2], found[3]


def channel_quarters(scores: Tensor, rows: int, columns: int) -> Tensor:
    """Of the blocks along the diagonal the lower left quarters, `[tiles, n, rows, columns]`.

    Args:
        scores: `[tiles, n * 2 * rows, n * 2 * columns]`.
        rows: of a quarter.
        columns: of a quarter.
    """
    count = scores.shape[2] // (2 * columns)
    blocks = scores.view(len(scores), count, 2, rows, count, 2, columns)
    return blocks[:, :, 1, :, :, 0].diagonal(0, 1, 3).permute(0, 3, 1, 2)


def channel_halves(readers: Tensor, writers: Tensor, retain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`channel_scores` for a tile of 2^n tokens, in operations that autograd and the compiler follow.

    Args:
        readers: `[..., C, R, D]`.
        writers: `[..., C, P, D]`.
        retain: `[..., C, D]`.

    Returns:
        Scores `[..., C R, C P]`, and what `channel_scores` gives besides.
    """
    z, p, total = readers.unsqueeze(-3), writers.unsqueeze(-3), retain
    scores = z.new_zeros(*z.shape[:-3], z.shape[-2], p.shape[-2])  # one token a block, [..., C, R, P]
    while total.shape[-2] > 1:
        z_left, z_right = z.unflatten(-4, (-1, 2)).unbind(-4)
        p_left, p_right = p.unflatten(-4, (-1, 2)).unbind(-4)
        left, right = total.unflatten(-2, (-1, 2)).unbind(-2)
        crossed = z_right.flatten(-3, -2) @ p_left.flatten(-3, -2).transpose(-1, -2)
        above, below = scores.unflatten(-3, (-1, 2)).unbind(-3)
        upper = torch.cat((above, torch.zeros_like(crossed)), dim=-1)
        scores = torch.cat((upper, torch.cat((crossed, below), dim=-1)), dim=-2)
        z = torch.cat((z_left, z_right * left[..., None, None, :]), dim=-3)
        p = torch.cat((p_left * right[..., None, None, :], p_right), dim=-3)
        total = left * right
    return scores.squeeze(-3), z.squeeze(-4), p.squeeze(-4), total.squeeze(-2)


def channel_scores(readers: Tensor, writers: Tensor, retain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of every reader with every writer before it, and what reaches the tile's boundaries.

    Args:
        readers: R for each token, `[..., C, R, D]`.
        writers: P for each token, `[..., C, P, D]`.
        retain: `[..., C, D]` in [0, 1].

    Returns:
        `[R, P, ..., C, C]`, strictly lower triangular: the gates of both tokens are left out; readers times
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
    given = (readers.to(wide), writers.to(wide), gates)
    if closed_form_fits(*given):
        made = _halved_closed(*given)  # type: ignore[call-arg]
    else:
        made = channel_halves(*given)
    scores, begun, ended = (x.to(dtype) for x in made[:3])
    sizes = gates.shape[-2], readers.shape[-2], writers.shape[-2]
    pairs = scores.unflatten(-1, (sizes[0], sizes[2])).unflatten(-3, (sizes[0], sizes[1]))
    pairs = pairs.movedim((-3, -1), (0, 1))[..., :tokens, :tokens].contiguous()
    return pairs, begun[..., :tokens, :, :], ended[..., :tokens, :, :], made[3].to(dtype)
