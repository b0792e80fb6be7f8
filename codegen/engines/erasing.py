"""Tiles of an erasing matrix memory, forward and backward in closed form.

Inside a tile of C tokens (see `delta`), W the weights before it and D its decay matrix:

    Z = V - diag(a) K W^T                 what a key should give, less what is left of the old weights
    U = X diag(e) Z,                      X = (I + diag(e) tril(K K^T * D_e, -1))^-1
    Y = diag(c) Q W^T + A U,              A = Q K^T * D_r
    W' = D_C0 W + U^T diag(D_C) K

D_e are the rows of D that the erasure sees and a their column of the boundary; D_r and c the same of the
read.  Only W passes from tile to tile, so that a tile costs seven products of matrices, and three of them
wait for the tile before.  The others are made for a group of tiles at once, as many as a core's cache
holds.

The backward runs the tiles in reverse, dW' the gradient of W':

    dU = A^T dY + diag(D_C) K dW'^T,      dR = X^T dU,         dZ = diag(e) dR
    dW = D_C0 dW' + (diag(c) dY)^T Q - (diag(a) dZ)^T K,       dX^-1 = -dR U^T

and what it gives to queries, keys and gates is done for a group of tiles at once.  Where the backward is to
be differentiated in its turn, it is the vector-Jacobian product of `erasing_plainly`, of which autograd
knows every step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.triangular import unit_lower_solve

TRACED_TILES = 8  # so many are as fast for a compiler as in closed form, and it is done within a minute
GROUP_BYTES = 1 << 19  # for one matrix a tile; about ten of them are in use at once


def erasing_tiles(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    rates: Tensor,
    decays: Tensor,
    weights: Tensor,
    *,
    retained: bool,
    after: bool,
) -> tuple[Tensor, Tensor]:
    """Run the gated delta rule over tiles.

    Args:
        queries: `[B, H, N, C, Dk]`.
        keys: `[B, H, N, C, Dk]`.
        values: `[B, H, N, C, Dv]`.
        rates: `[B, H, N, C]`.
        decays: decay matrix of every tile, `[B, H, N, C + 1, C + 1]`.
        weights: before the first tile, `[B, H, Dv, Dk]`.
        retained: erase what is left after forgetting, else what was there before.
        after: read after the own write, else before.

    Returns:
        The reads `[B, H, N, C, Dv]` and the weights after the last tile.
    """
    heads = weights.shape[:2]
    both = torch.cat((queries, keys), dim=3)
    rows = [x.movedim(2, 0).flatten(1, 2).contiguous() for x in (both, values, rates, decays)]
    tiles = (rows[0], rows[1], rows[2], rows[3], weights.flatten(0, 1))
    traced = torch.compiler.is_compiling() and len(rows[0]) <= TRACED_TILES
    if not traced and closed_form_fits(*tiles):
        read, last = _erasing_closed(*tiles, retained, after)  # type: ignore[call-arg]
    else:
        read, last = erasing_plainly(*tiles, retained=retained, after=after)
    return read.unflatten(1, heads).movedim(0, 2), last.unflatten(0, heads)


def closed_form_fits(*tensors: Tensor) -> bool:
    """Whether kernels that write into buffers of their own apply: one full precision, nothing traced.

    A compiler on a CPU steps around them: fusing the steps of many tiles gains less than the closed backward,
    and takes minutes for long sequences.
    """
    first = tensors[0]
    traced = torch.compiler.is_exporting() or (torch.compiler.is_compiling() and first.device.type != "cpu")
    if traced or torch.is_autocast_enabled(first.device.type):
        return False
    return first.dtype in (torch.float32, torch.float64) and all(x.dtype == first.dtype for x in tensors)


@torch.compiler.disable
def _erasing_closed(*inputs: Any) -> tuple[Tensor, Tensor]:
    """The reads and the last weights of `ErasingTiles`."""
    found: Any = ErasingTiles.apply(*inputs)
    return found[0], found[1]


def erasing_plainly(
    both: Tensor,
    values: Tensor,
    rates: Tensor,
    decays: Tensor,
    weights: Tensor,
    *,
    retained: bool,
    after: bool,
) -> tuple[Tensor, Tensor]:
    """`erasing_tiles` in operations that autograd and the compiler follow; tiles first, `[N, M, ...]`.

    U is affine in the weights before its tile, so the solve is done for all tiles at once and a tile's
    transition is one matrix product.

    Args:
        both: queries over keys, `[N, M, 2 C, Dk]`.
        values: `[N, M, C, Dv]`.
        rates: `[N, M, C]`.
        decays: `[N, M, C + 1, C + 1]`.
        weights: `[M, Dv, Dk]`.
        retained: as above.
        after: as above.
    """
    queries, keys = both.chunk(2, dim=2)
    erased = decays[..., 1:, :] if retained else decays[..., :-1, :]
    rows = decays[..., 1:, :] if after else decays[..., :-1, :]
    written, answered = erasing_solved(keys, values, rates, erased)
    tails = decays[..., -1, 1:, None] * keys
    identity = torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
    turns = decays[..., -1, :1, None] * identity - answered.transpose(-1, -2) @ tails
    writes = written.transpose(-1, -2) @ tails
    origins = []
    for turn, write in zip(turns.unbind(), writes.unbind(), strict=True):
        origins.append(weights)
        weights = torch.baddbmm(write, weights, turn)
    origin = torch.stack(origins).transpose(-1, -2)
    scores = (queries @ keys.transpose(-1, -2)) * rows[..., 1:]
    return rows[..., :1] * (queries @ origin) + scores @ (written - answered @ origin), weights


def erasing_solved(keys: Tensor, targets: Tensor, rates: Tensor, erased: Tensor) -> tuple[Tensor, Tensor]:
    """U as an affine map of the weights before the tile: U = first - second W^T.

    Args:
        keys: `[..., C, Dk]`.
        targets: `[..., C, R]`.
        rates: `[..., C]`.
        erased: rows of the decay matrix that the erasure sees, `[..., C, C + 1]`.
    """
    system = rates.unsqueeze(-1) * (keys @ keys.transpose(-1, -2)) * erased[..., 1:]
    right = rates.unsqueeze(-1) * torch.cat((targets, erased[..., :1] * keys), dim=-1)
    first, second = unit_lower_solve(system, right).split((targets.shape[-1], keys.shape[-1]), dim=-1)
    return first, second


class ErasingTiles(torch.autograd.Function):
    """`erasing_plainly` with a backward of its own; also gives what that one needs."""

    @staticmethod
    def forward(
        both: Tensor,
        values: Tensor,
        rates: Tensor,
        decays: Tensor,
        weights: Tensor,
        retained: bool,
        after: bool,
    ) -> tuple[Tensor, ...]:
        count, memories, size = rates.shape
        keys = both[:, :, size:]
        erased = decays[..., 1:, :] if retained else decays[..., :-1, :]
        rows = decays[..., 1:, :] if after else decays[..., :-1, :]
        left, kept = -erased[..., :1], decays[..., -1, :1, None]
        identity = torch.eye(size, dtype=both.dtype, device=both.device)

        products = both.new_empty(count, memories, 2 * size, size)  # Q K^T over K K^T
        inverse = both.new_empty(count, memories, size, size)
        carries = weights.new_empty(count + 1, *weights.shape)
        carries[0] = weights
        recalled = values.new_empty(count, memories, 2 * size, values.shape[-1])  # Q W^T over K W^T
        updates, read = torch.empty_like(values), torch.empty_like(values)  # U and Y
        for part in _groups(both, weights):
            _tilewise(both[part], keys[part].transpose(-1, -2), out=products[part])
            system = (products[part, :, size:] * erased[part, ..., 1:]).mul_(rates[part].unsqueeze(-1))
            inverse[part] = torch.linalg.solve_triangular(
                system, identity.expand_as(system), upper=False, unitriangular=True
            )
            weighted = inverse[part] * rates[part].unsqueeze(-2)
            tails = decays[part, :, -1, 1:, None] * keys[part]
            for at, n in enumerate(range(part.start, part.stop)):
                torch.bmm(both[n], carries[n].transpose(-1, -2), out=recalled[n])
                missing = torch.addcmul(values[n], left[n], recalled[n, :, size:])
                torch.bmm(weighted[at], missing, out=updates[n])
                torch.mul(kept[n], carries[n], out=carries[n + 1])
                carries[n + 1].baddbmm_(updates[n].transpose(-1, -2), tails[at])
            scores = products[part, :, :size] * rows[part, ..., 1:]
            _tilewise(scores, updates[part], out=read[part])
            read[part].addcmul_(rows[part, ..., :1], recalled[part, :, :size])
        return read, carries[-1].clone(), products, inverse, carries, recalled, updates

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        both, values, rates, decays, weights, ctx.retained, ctx.after = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(both, values, rates, decays, weights, *output[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, kept = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        values, weights = inputs[1], inputs[4]
        of_read = torch.zeros_like(values) if grads[0] is None else grads[0]
        of_last = torch.zeros_like(weights) if grads[1] is None else grads[1]
        if torch.is_grad_enabled():

            def plainly(*tensors: Tensor) -> tuple[Tensor, Tensor]:
                return erasing_plainly(*tensors, retained=ctx.retained, after=ctx.after)

            return *torch.func.vjp(plainly, *inputs)[1]((of_read, of_last)), None, None
        found = erasing_gradients(
            of_read.contiguous(),
            of_last,
            inputs[0],
            *inputs[1:4],
            *kept,
            retained=ctx.retained,
            after=ctx.after,
        )
        return *found, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """One more batch axis is more memories."""
        *tensors, retained, after = inputs
        stacked = []
        for axis, (tensor, dim) in enumerate(zip(tensors, in_dims, strict=False)):
            whole = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            at = 0 if axis == 4 else 1  # the weights have no axis of tiles
            stacked.append(whole.movedim(0, at).flatten(at, at + 1))
        outputs = ErasingTiles.apply(*stacked, retained, after)
        sizes = (info.batch_size, -1)
        split = tuple(x.unflatten(0 if n == 1 else 1, sizes) for n, x in enumerate(outputs))
        return split, tuple(0 if n == 1 else 1 for n in range(len(split)))


def erasing_gradients(
    of_read: Tensor,
    of_last: Tensor,
    both: Tensor,
    values: Tensor,
    rates: Tensor,
    decays: Tensor,
    products: Tensor,
    inverse: Tensor,
    carries: Tensor,
    recalled: Tensor,
    updates: Tensor,
    *,
    retained: bool,
    after: bool,
) -> tuple[Tensor, ...]:
    """Gradients of queries over keys, values, rates, decays and the first weights, `[N, M, ...]`.

    Args:
        of_read: gradient of the reads, `[N, M, C, Dv]`.
        of_last: gradient of the last weights, `[M, Dv, Dk]`.
        both: and the next three, as `erasing_plainly` takes them.
        values: `[N, M, C, Dv]`.
        rates: `[N, M, C]`.
        decays: `[N, M, C + 1, C + 1]`.
        products: Q K^T over K K^T; this and what follows as `ErasingTiles.forward` gives it.
        inverse: X.
        carries: W before every tile, and after the last.
        recalled: Q W^T over K W^T.
        updates: U.
        retained: see `erasing_tiles`.
        after: see `erasing_tiles`.
    """
    found = (
        torch.empty_like(both),
        torch.empty_like(values),
        torch.empty_like(rates),
        torch.zeros_like(decays),
    )
    of_weights = of_last
    for part in reversed(_groups(both, of_last)):
        of_weights = _group_gradients(
            of_read[part],
            both[part],
            values[part],
            rates[part],
            decays[part],
            products[part],
            inverse[part],
            carries[part.start : part.stop + 1],
            recalled[part],
            updates[part],
            of_weights,
            (found[0][part], found[1][part], found[2][part], found[3][part]),
            retained=retained,
            after=after,
        )
    return *found, of_weights


def _group_gradients(
    of_read: Tensor,
    both: Tensor,
    values: Tensor,
    rates: Tensor,
    decays: Tensor,
    products: Tensor,
    inverse: Tensor,
    carries: Tensor,
    recalled: Tensor,
    updates: Tensor,
    of_last: Tensor,
    into: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    retained: bool,
    after: bool,
) -> Tensor:
    """`erasing_gradients` of some tiles, written `into` slices; gives the gradient of their first weights."""
    count, _, size = rates.shape
    of_both, of_values, of_rates, of_decays = into
    queries, keys = both[:, :, :size], both[:, :, size:]
    erased = decays[..., 1:, :] if retained else decays[..., :-1, :]
    rows = decays[..., 1:, :] if after else decays[..., :-1, :]
    ends, kept = decays[..., -1, 1:, None], decays[..., -1, :1, None]
    scores, tails = products[:, :, :size] * rows[..., 1:], ends * keys

    of_updates = _tilewise(scores.transpose(-1, -2), of_read)
    of_recalled = torch.empty_like(recalled)
    torch.mul(of_read, rows[..., :1], out=of_recalled[:, :, :size])
    of_carries = torch.empty_like(carries)
    _tilewise(of_recalled[:, :, :size].transpose(-1, -2), queries, out=of_carries[:-1])
    of_carries[-1] = of_last
    solved = torch.empty_like(updates)  # dR
    left = -(erased[..., :1] * rates.unsqueeze(-1))
    for n in reversed(range(count)):
        of_updates[n].baddbmm_(tails[n], of_carries[n + 1].transpose(-1, -2))
        torch.bmm(inverse[n].transpose(-1, -2), of_updates[n], out=solved[n])
        torch.mul(left[n], solved[n], out=of_recalled[n, :, size:])
        of_carries[n].addcmul_(kept[n], of_carries[n + 1])
        of_carries[n].baddbmm_(of_recalled[n, :, size:].transpose(-1, -2), keys[n])

    turned = updates.transpose(-1, -2)
    of_scores = _tilewise(of_read, turned)
    of_system = _tilewise(solved, turned).tril_(-1).neg_()
    own = of_system * products[:, :, size:]  # to the rates and to the decays
    torch.mul(solved, rates.unsqueeze(-1), out=of_values)
    missing = torch.addcmul(values, erased[..., :1], recalled[:, :, size:], value=-1)  # Z
    torch.add(missing.mul_(solved).sum(-1), (own * erased[..., 1:]).sum(-1), out=of_rates)

    of_products = torch.empty_like(products)
    torch.mul(of_scores, rows[..., 1:], out=of_products[:, :, :size])
    of_gram = of_system.mul_(erased[..., 1:]).mul_(rates.unsqueeze(-1))
    torch.add(of_gram, of_gram.transpose(-1, -2), out=of_products[:, :, size:])
    _tilewise(of_products, keys, out=of_both)
    of_both.flatten(0, 1).baddbmm_(of_recalled.flatten(0, 1), carries[:-1].flatten(0, 1))
    written = _tilewise(updates, of_carries[1:])
    of_keys = _tilewise(of_products[:, :, :size].transpose(-1, -2), queries).addcmul_(ends, written)
    of_both[:, :, size:].add_(of_keys)

    of_rows = of_decays[..., 1:, :] if after else of_decays[..., :-1, :]
    torch.mul(of_scores, products[:, :, :size], out=of_rows[..., 1:])
    of_rows[..., 0] = (of_read * recalled[:, :, :size]).sum(-1)
    of_erased = of_decays[..., 1:, :] if retained else of_decays[..., :-1, :]
    of_erased[..., 1:].addcmul_(own, rates.unsqueeze(-1))
    of_erased[..., 0].sub_((of_values * recalled[:, :, size:]).sum(-1))
    of_decays[..., -1, 1:].add_(written.mul_(keys).sum(-1))
    of_decays[..., -1, 0].add_((of_carries[1:] * carries[:-1]).sum((-1, -2)))
    return of_carries[0]


def _groups(both: Tensor, weights: Tensor) -> list[slice]:
    """Tiles that are worked on at once: as many as keep one matrix of each in a core's cache."""
    count, memories, rows, dim_k = both.shape
    matrix = memories * dim_k * max(rows, weights.shape[-2]) * both.element_size()
    at_once = max(1, GROUP_BYTES // max(1, matrix)) if both.device.type == "cpu" else count
    return [slice(n, min(n + at_once, count)) for n in range(0, count, at_once)]


def _tilewise(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """`left @ right` of `[N, M, ...]` in one batch."""
    into = None if out is None else out.flatten(0, 1)
    product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=into)
    return product.unflatten(0, left.shape[:2])
