"""Tiles of a memory whose gradients stand still, forward and backward in closed form.

In a tile of C tokens (see `frozen` and `layers`), A_l the anchor of layer l, W_l and S_l its weights and
momentum before the tile, kappa, mu and G the coefficients of a read and the last row's for the fold:

    pairs   z_l = x_l A_l^T,  x_{l+1} = act(z_l);     g_l = d_{l+1} A_{l+1},  d_l = act'(z_l) g_l
    read    y_l = kappa s_l W_l^T + mu s_l S_l^T - (G * s_l x_l^T) d_l,       s_{l+1} = act(y_l)
    fold    W_l' = kappa_C W_l + mu_C S_l - (G_C d_l)^T x_l,   S_l' = beta_C S_l - (H_C d_l)^T x_l

The backward runs the tiles in reverse and each tile from its fold to its pairs; act'' enters where the
gradient of d_l reaches z_l.  Of a tile it needs z, g, y, the last d, s x^T and what passed into it: weights
of tokens do not exist, and activations and slopes are computed again.  Where the backward is to be
differentiated in its turn, it is the vector-Jacobian product of `frozen_tiles_plainly`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.erasing import closed_form_fits
from nldsl.codegen.engines.frozen_passes import FrozenBackward, FrozenForward
from nldsl.codegen.engines.frozen_plain import (
    FrozenCoefficients,
    FrozenLayers,
    FrozenTiling,
    frozen_tiles_plainly,
)

FROZEN_TRACED_TILES = 16  # so many a compiler fuses whole; with more, compiling takes minutes


def frozen_tiles(
    pairs: tuple[Tensor, Tensor, Tensor],
    weighing: FrozenCoefficients,
    running: FrozenLayers,
    anchor: FrozenLayers,
    moments: FrozenLayers | None,
    tiling: FrozenTiling,
) -> tuple[Tensor, FrozenLayers, FrozenLayers, FrozenLayers | None]:
    """Run the tiles of `frozen`.

    Args:
        pairs: queries `[N, M, C, Dk]`, keys `[N, M, C, Dk]`, values `[N, M, C, Dv]`; M is batch and heads.
        weighing: the coefficients.
        running: weights before the first tile, `[M, out, in]`, first layer first.
        anchor: weights of the open period, the same shapes.
        moments: S before the first tile, where there is momentum.
        tiling: the rest.

    Returns:
        The reads `[N, M, C, Dv]`, and running weights, anchor and momentum after the last tile.
    """
    parts = (weighing.kept, weighing.taken, weighing.moved, weighing.push_kept, weighing.push_taken)
    tensors = [*pairs, *parts, *running, *anchor, *(moments or ())]
    present = [x for x in tensors if x is not None]
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in present)  # else nothing need be kept
    traced = torch.compiler.is_compiling() and len(tiling.opens) <= FROZEN_TRACED_TILES
    if traced or tiling.holds_anchor or any(tiling.ends) or not (learns and closed_form_fits(*present)):
        return frozen_tiles_plainly(pairs, weighing, running, anchor, moments, tiling)
    given = [None if x is None else x.contiguous() for x in tensors[:8]]
    found = _frozen_closed(tiling, moments is not None, *given, *tensors[8:])  # type: ignore[call-arg]
    depth, count = tiling.depth, 3 if moments is not None else 2
    layers = [found[1 + n * depth : 1 + (n + 1) * depth] for n in range(count)]
    return found[0], layers[0], layers[1], layers[2] if moments is not None else None


@torch.compiler.disable
def _frozen_closed(tiling: FrozenTiling, moving: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """The results of `FrozenTiles`, without what its backward keeps."""
    found: Any = FrozenTiles.apply(tiling, moving, *tensors)
    return tuple(found[: 1 + tiling.depth * (3 if moving else 2)])


class FrozenTiles(torch.autograd.Function):
    """`frozen_tiles_plainly` with a backward of its own; also gives what that one needs.

    Inputs: the tiling, whether there is momentum, queries, keys, values, the five coefficients, then the
    layers of the running weights, of the anchor and of the momentum.
    """

    @staticmethod
    def forward(tiling: FrozenTiling, moving: bool, *tensors: Any) -> tuple[Tensor, ...]:
        return FrozenForward(tiling, moving, tensors).run()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.tiling, ctx.moving = inputs[:2]
        ctx.results = 1 + ctx.tiling.depth * (3 if ctx.moving else 2)
        ctx.mark_non_differentiable(*output[ctx.results :])
        ctx.set_materialize_grads(False)
        ctx.given = len(inputs) - 2
        ctx.save_for_backward(*inputs[2:], *output[ctx.results :])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, kept = ctx.saved_tensors[: ctx.given], ctx.saved_tensors[ctx.given :]
        depth = ctx.tiling.depth
        shapes = (tensors[2], *tensors[8 : 8 + depth], *tensors[8 : 8 + depth], *tensors[8 + 2 * depth :])
        known = [
            torch.zeros_like(like) if grad is None else grad
            for grad, like in zip(grads[: ctx.results], shapes, strict=True)
        ]
        if torch.is_grad_enabled():
            return None, None, *_plain_products(ctx.tiling, ctx.moving, tensors, tuple(known))
        return None, None, *FrozenBackward(ctx.tiling, ctx.moving, tensors, kept).run(known)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """One more batch axis is more memories."""
        tiling, moving, *tensors = inputs
        stacked = []
        for place, (tensor, dim) in enumerate(zip(tensors, in_dims[2:], strict=True)):
            if tensor is None:
                stacked.append(None)
                continue
            whole = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            at = 1 if place < 8 else 0  # weights have no axis of tiles
            stacked.append(whole.movedim(0, at).flatten(at, at + 1).contiguous())
        outputs = FrozenTiles.apply(tiling, moving, *stacked)
        results = 1 + tiling.depth * (3 if moving else 2)
        axes = [0 if 0 < n < results else 1 for n in range(len(outputs))]  # type: ignore[arg-type]
        split = tuple(
            x.unflatten(a, (info.batch_size, -1))
            for x, a in zip(outputs, axes, strict=True)  # type: ignore[call-overload]
        )
        return split, tuple(axes)


def _plain_products(
    tiling: FrozenTiling, moving: bool, tensors: tuple[Tensor | None, ...], known: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """The vector-Jacobian product of the plain form, `None` for what was not given."""
    present = [n for n, x in enumerate(tensors) if x is not None]

    def plainly(*given: Tensor) -> tuple[Tensor, ...]:
        whole: list[Any] = [None] * len(tensors)
        for n, x in zip(present, given, strict=True):
            whole[n] = x
        layers = [tuple(whole[at : at + tiling.depth]) for at in range(8, len(whole), tiling.depth)]
        read, running, anchor, moments = frozen_tiles_plainly(
            (whole[0], whole[1], whole[2]),
            FrozenCoefficients(*whole[3:8]),
            layers[0],
            layers[1],
            layers[2] if moving else None,
            tiling,
        )
        return read, *running, *anchor, *(moments or ())

    found: list[Tensor | None] = [None] * len(tensors)
    products = torch.func.vjp(plainly, *(tensors[n] for n in present))[1](known)
    for n, x in zip(present, products, strict=True):
        found[n] = x
    return found
