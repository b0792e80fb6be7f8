"""Tiles whose writes solve a triangular system, whatever their scores are made of.

A tile is given as what its tokens ask of the weights W before it, and what they write (see `channels`):

    Z  = G - K W^T              what is to be written, less what is left of the old weights along k
    U  = (I + L)^-1 Z           L strictly lower triangular: what each write sees of those before it
    Y  = Q W^T + A U
    W' = W Diag(g) + U^T T + P  T the directions written into, P what is added apart from the solve

Only W passes from tile to tile: three products of matrices wait for the tile before, all others are one
batch.  The backward runs the tiles in reverse, dW' the gradient of W':

    dU = A^T dY + T dW'^T,      dZ = (I + L)^-T dU,     dL = -tril(dZ U^T, -1),     dA = dY U^T
    dW = dW' Diag(g) + dY^T Q - dZ^T K

Where the outer gradient is cut after a tile, its dW' is 0.

Where the backward is to be differentiated in its turn, it is the vector-Jacobian product of
`carried_plainly`, of which autograd knows every step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.erasing import closed_form_fits
from nldsl.codegen.engines.triangular import unit_lower_solve


def carried_tiles(
    asked: Tensor,
    targets: Tensor,
    system: Tensor,
    answers: Tensor,
    tails: Tensor,
    kept: Tensor,
    added: Tensor,
    weights: Tensor,
    ends: tuple[bool, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Run the tiles, first in the first axis.

    Args:
        asked: K and Q side by side for each token, `[N, M, C, 2, Dk]`.
        targets: G, `[N, M, C, Dv]`.
        system: L, `[N, M, C, C]`; only what is strictly below the diagonal is read.
        answers: A, `[N, M, C, C]`.
        tails: T, `[N, M, C, Dk]`.
        kept: g, `[N, M, Dk]`.
        added: P, `[N, M, Dv, Dk]`, or one zero.
        weights: W before the first tile, `[M, Dv, Dk]`.
        ends: for each tile, whether its W' goes on as a value without a past; none do where empty.

    Returns:
        Y `[N, M, C, Dv]`, and the weights after the last tile.
    """
    given = (asked, targets, system, answers, tails, kept, added.expand(len(asked), *weights.shape), weights)
    if closed_form_fits(*given):
        return _carried_closed(*given, ends)  # type: ignore[call-arg]
    return carried_plainly(*given, ends)


@torch.compiler.disable
def _carried_closed(*given: Any) -> tuple[Tensor, Tensor]:
    """The reads and the last weights of `CarriedTiles`, around which a compiler steps."""
    found: Any = CarriedTiles.apply(*given)
    return found[0], found[1]


def carried_plainly(
    asked: Tensor,
    targets: Tensor,
    system: Tensor,
    answers: Tensor,
    tails: Tensor,
    kept: Tensor,
    added: Tensor,
    weights: Tensor,
    ends: tuple[bool, ...] = (),
) -> tuple[Tensor, Tensor]:
    """`carried_tiles` in operations that autograd and the compiler follow.

    U is affine in the weights before its tile, so the solve is done for all tiles at once and a tile's
    transition is one matrix product.
    """
    keys, queries = asked.unbind(-2)
    solved = unit_lower_solve(system, torch.cat((targets, keys), dim=-1))
    first, second = solved.split((targets.shape[-1], keys.shape[-1]), dim=-1)
    writes = first.transpose(-1, -2) @ tails + added
    turns = torch.diag_embed(kept) - second.transpose(-1, -2) @ tails
    origins = []
    for n, (turn, write) in enumerate(zip(turns.unbind(), writes.unbind(), strict=True)):
        origins.append(weights)
        weights = torch.baddbmm(write, weights, turn)
        weights = weights.detach() if ends and ends[n] else weights
    origin = torch.stack(origins).transpose(-1, -2)
    return queries @ origin + answers @ (first - second @ origin), weights


class CarriedTiles(torch.autograd.Function):
    """`carried_plainly` with a backward of its own; also gives what that one needs."""

    @staticmethod
    def forward(
        asked: Tensor,
        targets: Tensor,
        system: Tensor,
        answers: Tensor,
        tails: Tensor,
        kept: Tensor,
        added: Tensor,
        weights: Tensor,
        ends: tuple[bool, ...],  # noqa: ARG004 -- for the backward
    ) -> tuple[Tensor, ...]:
        count, memories, size, _, dim_k = asked.shape
        identity = torch.eye(size, dtype=system.dtype, device=system.device).expand_as(system)
        inverse = torch.linalg.solve_triangular(system, identity, upper=False, unitriangular=True)
        rows = asked.reshape(count, memories, 2 * size, dim_k)
        recalled = targets.new_empty(count, memories, 2 * size, targets.shape[-1])
        pairs = recalled.unflatten(2, (size, 2))
        updates, carries = torch.empty_like(targets), weights.new_empty(count + 1, *weights.shape)
        carries[0] = weights
        for n in range(count):
            torch.bmm(rows[n], carries[n].transpose(-1, -2), out=recalled[n])
            torch.bmm(inverse[n], targets[n] - pairs[n, :, :, 0], out=updates[n])
            left = torch.addcmul(added[n], kept[n].unsqueeze(-2), carries[n])
            torch.baddbmm(left, updates[n].transpose(-1, -2), tails[n], out=carries[n + 1])
        read = (answers @ updates).add_(pairs[..., 1, :])
        return read, carries[-1].clone(), inverse, updates, carries

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:8], *output[2:])
        ctx.ends = inputs[8]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, made = ctx.saved_tensors[:8], ctx.saved_tensors[8:]
        of_read = torch.zeros_like(inputs[1]) if grads[0] is None else grads[0]
        of_last = torch.zeros_like(inputs[7]) if grads[1] is None else grads[1]
        if torch.is_grad_enabled():
            plainly = partial(carried_plainly, ends=ctx.ends)
            return *torch.func.vjp(plainly, *inputs)[1]((of_read, of_last)), None
        asked, _, _, answers, tails, kept, _, _ = inputs
        inverse, updates, carries = made
        grads_of_inputs = carried_gradients(
            of_read.contiguous(), of_last, asked, answers, tails, kept, inverse, updates, carries, ctx.ends
        )
        return *grads_of_inputs, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """One more batch axis is more memories."""
        stacked: list[Any] = []
        for axis, (tensor, dim) in enumerate(zip(inputs[:8], in_dims[:8], strict=True)):
            whole = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            at = 0 if axis == 7 else 1  # the weights have no axis of tiles
            stacked.append(whole.movedim(0, at).flatten(at, at + 1))
        stacked.append(inputs[8])
        outputs = CarriedTiles.apply(*stacked)
        sizes = (info.batch_size, -1)
        split = tuple(x.unflatten(0 if n == 1 else 1, sizes) for n, x in enumerate(outputs))
        return split, tuple(0 if n == 1 else 1 for n in range(len(split)))


def carried_gradients(
    of_read: Tensor,
    of_last: Tensor,
    asked: Tensor,
    answers: Tensor,
    tails: Tensor,
    kept: Tensor,
    inverse: Tensor,
    updates: Tensor,
    carries: Tensor,
    ends: tuple[bool, ...] = (),
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of `carried_tiles`, in their order.

    Args:
        of_read: dY, `[N, M, C, Dv]`.
        of_last: gradient of the last weights, `[M, Dv, Dk]`.
        asked: and the next three, as `carried_tiles` takes them.
        answers: A.
        tails: T.
        kept: g.
        inverse: (I + L)^-1, `[N, M, C, C]`.
        updates: U, `[N, M, C, Dv]`.
        carries: W before every tile and after the last, `[N + 1, M, Dv, Dk]`.
        ends: as `carried_tiles` takes it.
    """
    count, memories, size, _, dim_k = asked.shape
    rows = asked.reshape(count, memories, 2 * size, dim_k)
    of_updates = (answers.transpose(-1, -2) @ of_read).contiguous()
    of_recalled = of_read.new_empty(*rows.shape[:3], of_read.shape[-1])
    pairs = of_recalled.unflatten(2, (size, 2))
    pairs[..., 1, :] = of_read
    solved, of_carries = torch.empty_like(of_updates), torch.empty_like(carries)
    of_carries[-1] = of_last
    for n in reversed(range(count)):
        if ends and ends[n]:
            of_carries[n + 1].zero_()
        torch.baddbmm(of_updates[n], tails[n], of_carries[n + 1].transpose(-1, -2), out=of_updates[n])
        torch.bmm(inverse[n].transpose(-1, -2), of_updates[n], out=solved[n])
        torch.neg(solved[n], out=pairs[n, :, :, 0])
        left = kept[n].unsqueeze(-2) * of_carries[n + 1]
        torch.baddbmm(left, of_recalled[n].transpose(-1, -2), rows[n], out=of_carries[n])
    turned = updates.transpose(-1, -2)
    return (
        (of_recalled @ carries[:-1]).view_as(asked),
        solved,
        (solved @ turned).tril_(-1).neg_(),
        of_read @ turned,
        updates @ of_carries[1:],
        (of_carries[1:] * carries[:-1]).sum(-2),
        of_carries[1:],
        of_carries[0],
    )
