"""The forward and the backward pass over the tiles of `frozen_tiles`, in closed form and in buffers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.frozen_plain import FrozenTiling
from nldsl.codegen.engines.layers import (
    activation_slope,
    activation_value,
)


class FrozenPass:
    """What forward and backward share: the inputs by name, and the buffers of what passes on.

    `carries[l]` `[N + 1, M, out, in]`, with momentum `[N + 1, M, 2 out, in]`, S below W.
    """

    def __init__(self, tiling: FrozenTiling, moving: bool, tensors: tuple[Any, ...]) -> None:
        self.tiling, self.moving, self.depth = tiling, moving, tiling.depth
        self.queries, self.keys, self.values, self.kept, self.taken = tensors[:5]
        self.moved, self.push_kept, self.push_taken = tensors[5:8]
        self.running, self.first_anchor = tensors[8 : 8 + self.depth], tensors[8 + self.depth :][: self.depth]
        self.moments = tensors[8 + 2 * self.depth :]
        self.outs = [w.shape[-2] for w in self.running]
        self.count = len(self.keys)
        self.rows = slice(1, None) if tiling.read == "after" else slice(None, -1)
        self.opened_by = _opened_by(tiling.opens)

    def anchor(self, n: int, layer: int, carries: list[Tensor]) -> Tensor:
        """The weights at which the gradients of tile `n` are taken."""
        at = self.opened_by[n]
        return self.first_anchor[layer] if at < 0 else carries[layer][at, :, : self.outs[layer]]

    def both_ends(self, n: int, error: Tensor) -> Tensor:
        """What a layer's errors add to W and to S, `[M, C, out]` or `[M, C, 2 out]`."""
        own = self.taken[n, :, -1, :, None] * error
        return torch.cat((own, self.push_taken[n, :, 0, :, None] * error), dim=-1) if self.moving else own


class FrozenForward(FrozenPass):
    """The tiles one after another, and what their backward needs."""

    def run(self) -> tuple[Tensor, ...]:
        depth, keys = self.depth, self.keys
        memories, size = keys.shape[1:3]
        self.carries = []
        for layer, weights in enumerate(self.running):
            both = torch.cat((weights, self.moments[layer]), dim=1) if self.moving else weights
            self.carries.append(both.new_empty(self.count + 1, *both.shape))
            self.carries[-1][0] = both
        self.before, self.slopes, self.passed = (  # z, g and y of the inner layers
            [keys.new_empty(self.count, memories, size, out) for out in self.outs[:-1]] for _ in range(3)
        )
        reading = self.tiling.read != "boundary"
        self.scores = keys.new_empty(depth if reading else 0, self.count, memories, size, size)
        self.errors, self.reads = torch.empty_like(self.values), torch.empty_like(self.values)
        for n in range(self.count):
            inputs, errors = self._pairs(n)
            if reading:
                self._read(n, inputs, errors)
            else:
                self._read_anchor(n)
            self._fold(n, inputs, errors)
        last = [c[-1] for c in self.carries]
        results = [x[:, :out].clone() for x, out in zip(last, self.outs, strict=True)]
        results += [self.anchor(self.count - 1, layer, self.carries).clone() for layer in range(depth)]
        results += [x[:, out:].clone() for x, out in zip(last, self.outs, strict=True)] if self.moving else []
        kept = (*self.carries, *self.before, *self.slopes, *self.passed, self.scores, self.errors)
        return self.reads, *results, *kept

    def _pairs(self, n: int) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and errors of every layer."""
        anchors = [self.anchor(n, layer, self.carries) for layer in range(self.depth)]
        inputs = [self.keys[n]]
        for layer in range(self.depth - 1):
            torch.bmm(inputs[-1], anchors[layer].transpose(-1, -2), out=self.before[layer][n])
            inputs.append(activation_value(self.tiling.activation, self.before[layer][n]))
        last = self.errors[n]
        if self.tiling.objective == "dot":
            torch.neg(self.values[n], out=last)
        else:
            torch.bmm(inputs[-1], anchors[-1].transpose(-1, -2), out=last)
            last.sub_(self.values[n])
            if self.tiling.residual:
                last.add_(self.keys[n])
        errors = [last]
        for layer in reversed(range(self.depth - 1)):
            torch.bmm(errors[0], anchors[layer + 1], out=self.slopes[layer][n])
            errors.insert(
                0, activation_pulled(self.tiling.activation, self.before[layer][n], self.slopes[layer][n])
            )
        return inputs, errors

    def _read(self, n: int, inputs: list[Tensor], errors: list[Tensor]) -> None:
        kept, taken = self.kept[n, :, self.rows], self.taken[n, :, self.rows]
        signal = self.queries[n]
        for layer in range(self.depth):
            out = self.outs[layer]
            held = torch.bmm(signal, self.carries[layer][n].transpose(-1, -2))
            torch.bmm(signal, inputs[layer].transpose(-1, -2), out=self.scores[layer, n])
            result = self.reads[n] if layer == self.depth - 1 else self.passed[layer][n]
            torch.mul(held[..., :out], kept, out=result)
            if self.moved is not None:
                result.addcmul_(held[..., out:], self.moved[n, :, self.rows])
            result.baddbmm_(taken * self.scores[layer, n], errors[layer], alpha=-1)
            if layer < self.depth - 1:
                signal = activation_value(self.tiling.activation, result)
        if self.tiling.residual:
            self.reads[n].add_(self.queries[n])

    def _read_anchor(self, n: int) -> None:
        signal = self.queries[n]
        for layer in range(self.depth):
            result = self.reads[n] if layer == self.depth - 1 else self.passed[layer][n]
            torch.bmm(signal, self.anchor(n, layer, self.carries).transpose(-1, -2), out=result)
            if layer < self.depth - 1:
                signal = activation_value(self.tiling.activation, result)
        if self.tiling.residual:
            self.reads[n].add_(self.queries[n])

    def _fold(self, n: int, inputs: list[Tensor], errors: list[Tensor]) -> None:
        for layer, out in enumerate(self.outs):
            held, after = self.carries[layer][n], self.carries[layer][n + 1]
            torch.mul(held[:, :out], self.kept[n, :, -1:], out=after[:, :out])
            if self.moved is not None:
                after[:, :out].addcmul_(held[:, out:], self.moved[n, :, -1:])
                torch.mul(held[:, out:], self.push_kept[n], out=after[:, out:])
            after.baddbmm_(self.both_ends(n, errors[layer]).transpose(-1, -2), inputs[layer], alpha=-1)


class FrozenBackward(FrozenPass):
    """The tiles in reverse.  What goes to inputs that were not given stays `None`."""

    of_queries: Any
    of_keys: Any
    of_values: Any
    of_kept: Any
    of_taken: Any
    of_moved: Any
    of_push_kept: Any
    of_push_taken: Any

    def __init__(
        self, tiling: FrozenTiling, moving: bool, tensors: tuple[Any, ...], kept: tuple[Tensor, ...]
    ) -> None:
        super().__init__(tiling, moving, tensors)
        depth, inner = self.depth, self.depth - 1
        self.carries = list(kept[:depth])
        self.before, self.slopes, self.passed = (
            kept[depth + n * inner : depth + (n + 1) * inner] for n in range(3)
        )
        self.scores, self.errors = kept[-2:]

    def run(self, known: list[Tensor]) -> list[Tensor | None]:
        """Gradients of all inputs, from those of the reads and of the last weights, anchor and momentum."""
        depth = self.depth
        self.of_reads = known[0]
        weights, anchors, moments = (known[1 + n * depth : 1 + (n + 1) * depth] for n in range(3))
        self.of_anchor = [x.clone() for x in anchors]
        self.of_carry = [
            torch.cat((w, s), dim=1) if self.moving else w.clone()
            for w, s in zip(weights, moments or weights, strict=True)
        ]
        self.spare = [torch.empty_like(x) for x in self.of_carry]  # two buffers take turns
        inputs = (self.queries, self.keys, self.values, self.kept, self.taken, self.moved)
        found = [
            None if x is None else torch.zeros_like(x) for x in (*inputs, self.push_kept, self.push_taken)
        ]
        self.of_queries, self.of_keys, self.of_values, self.of_kept, self.of_taken = found[:5]
        self.of_moved, self.of_push_kept, self.of_push_taken = found[5:]
        for n in reversed(range(self.count)):
            self._tile(n)
        split = [(w[:, :out], w[:, out:]) for w, out in zip(self.of_carry, self.outs, strict=True)]
        last = [w for w, _ in split] + self.of_anchor + ([s for _, s in split] if self.moving else [])
        return [*found, *last]

    def _tile(self, n: int) -> None:
        name = self.tiling.activation
        inputs, derivatives, bends, errors = [self.keys[n]], [], [], []
        for layer in range(self.depth - 1):
            value, derivative, bend = activation_bend(name, self.before[layer][n])
            inputs.append(value)
            derivatives.append(derivative)
            bends.append(bend)
            errors.append(derivative * self.slopes[layer][n])
        errors.append(self.errors[n])
        of_inputs, of_errors = self._unfold(n, inputs, errors)
        if self.tiling.read == "boundary":
            self._unread_anchor(n)
        else:
            self._unread(n, inputs, errors, of_inputs, of_errors)
        self._unpair(n, inputs, derivatives, bends, errors, of_inputs, of_errors)
        if self.tiling.opens[n]:  # what stood still was this tile's own start
            for layer, out in enumerate(self.outs):
                self.of_carry[layer][:, :out].add_(self.of_anchor[layer])
                self.of_anchor[layer].zero_()

    def _unfold(
        self, n: int, inputs: list[Tensor], errors: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Through the fold: gradients of inputs and errors; `of_carry` becomes that of the tile's start."""
        of_inputs, of_errors = [], []
        end = self.taken[n, :, -1, :, None]
        for layer, out in enumerate(self.outs):
            after, held = self.of_carry[layer], self.carries[layer][n]
            drawn = torch.bmm(inputs[layer], after.transpose(-1, -2))  # x W'^T beside x S'^T
            self.of_taken[n, :, -1].sub_(_row_products(errors[layer], drawn[..., :out]))
            of_error = drawn[..., :out] * -end
            of_inputs.append(torch.bmm(self.both_ends(n, errors[layer]), after).neg_())
            self.of_kept[n, :, -1, 0].add_(_dots(after[:, :out], held[:, :out]))
            before = self.spare[layer]
            torch.mul(after[:, :out], self.kept[n, :, -1:], out=before[:, :out])
            if self.moved is not None:
                self.of_push_taken[n, :, 0].sub_(_row_products(errors[layer], drawn[..., out:]))
                of_error.addcmul_(drawn[..., out:], self.push_taken[n, :, 0, :, None], value=-1)
                self.of_moved[n, :, -1, 0].add_(_dots(after[:, :out], held[:, out:]))
                self.of_push_kept[n, :, 0, 0].add_(_dots(after[:, out:], held[:, out:]))
                torch.mul(after[:, out:], self.push_kept[n], out=before[:, out:])
                before[:, out:].addcmul_(after[:, :out], self.moved[n, :, -1:])
            of_errors.append(of_error)
            self.of_carry[layer], self.spare[layer] = before, after
        return of_inputs, of_errors

    def _unread(
        self,
        n: int,
        inputs: list[Tensor],
        errors: list[Tensor],
        of_inputs: list[Tensor],
        of_errors: list[Tensor],
    ) -> None:
        kept, taken = self.kept[n, :, self.rows], self.taken[n, :, self.rows]
        of_kept, of_taken = self.of_kept[n, :, self.rows, 0], self.of_taken[n, :, self.rows]
        of_result = self.of_reads[n]
        for layer in reversed(range(self.depth)):
            out, held, scores = self.outs[layer], self.carries[layer][n], self.scores[layer, n]
            signal = self._signal(n, layer)
            of_shares = torch.bmm(of_result, errors[layer].transpose(-1, -2)).neg_()
            of_taken.addcmul_(of_shares, scores)
            of_errors[layer].baddbmm_((taken * scores).transpose(-1, -2), of_result, alpha=-1)
            of_scores = of_shares.mul_(taken)
            of_inputs[layer].baddbmm_(of_scores.transpose(-1, -2), signal)
            back = torch.bmm(of_result, held[:, :out])
            of_kept.add_(_row_products(back, signal))
            of_signal = torch.baddbmm(back.mul_(kept), of_scores, inputs[layer])
            left = kept * of_result
            if self.moved is not None:
                moved = self.moved[n, :, self.rows]
                back = torch.bmm(of_result, held[:, out:])
                self.of_moved[n, :, self.rows, 0].add_(_row_products(back, signal))
                of_signal.addcmul_(back, moved)
                left = torch.cat((left, moved * of_result), dim=-1)
            self.of_carry[layer].baddbmm_(left.transpose(-1, -2), signal)
            of_result = self._unsignal(n, layer, of_signal)
        self.of_queries[n] = of_result + self.of_reads[n] if self.tiling.residual else of_result

    def _unread_anchor(self, n: int) -> None:
        of_result = self.of_reads[n]
        for layer in reversed(range(self.depth)):
            signal = self._signal(n, layer)
            self.of_anchor[layer].baddbmm_(of_result.transpose(-1, -2), signal)
            of_signal = torch.bmm(of_result, self.anchor(n, layer, self.carries))
            of_result = self._unsignal(n, layer, of_signal)
        self.of_queries[n] = of_result + self.of_reads[n] if self.tiling.residual else of_result

    def _signal(self, n: int, layer: int) -> Tensor:
        """What a read brings to a layer."""
        if layer == 0:
            return self.queries[n]
        return activation_value(self.tiling.activation, self.passed[layer - 1][n])

    def _unsignal(self, n: int, layer: int, of_signal: Tensor) -> Tensor:
        """The gradient of a layer's signal, pulled back through the activation before it."""
        if layer == 0:
            return of_signal
        return activation_pulled(self.tiling.activation, self.passed[layer - 1][n], of_signal)

    def _unpair(
        self,
        n: int,
        inputs: list[Tensor],
        derivatives: list[Tensor],
        bends: list[Tensor],
        errors: list[Tensor],
        of_inputs: list[Tensor],
        of_errors: list[Tensor],
    ) -> None:
        """Through errors and inputs of the layers, down to key, value and anchor."""
        anchors = [self.anchor(n, layer, self.carries) for layer in range(self.depth)]
        into = self.of_anchor
        of_before = []
        for layer in range(self.depth - 1):
            slope = self.slopes[layer][n]
            of_before.append(bends[layer].mul_(slope).mul_(of_errors[layer]))
            of_slope = of_errors[layer].mul_(derivatives[layer])
            of_errors[layer + 1].baddbmm_(of_slope, anchors[layer + 1].transpose(-1, -2))
            into[layer + 1].baddbmm_(errors[layer + 1].transpose(-1, -2), of_slope)
        torch.neg(of_errors[-1], out=self.of_values[n])
        if self.tiling.objective != "dot":
            into[-1].baddbmm_(of_errors[-1].transpose(-1, -2), inputs[-1])
            of_inputs[-1].baddbmm_(of_errors[-1], anchors[-1])
        for layer in reversed(range(self.depth - 1)):
            of_z = of_before[layer].addcmul_(derivatives[layer], of_inputs[layer + 1])
            into[layer].baddbmm_(of_z.transpose(-1, -2), inputs[layer])
            of_inputs[layer].baddbmm_(of_z, anchors[layer])
        self.of_keys[n] = of_inputs[0]
        if self.tiling.residual and self.tiling.objective != "dot":
            self.of_keys[n].add_(of_errors[-1])


def activation_pulled(name: str, z: Tensor, along: Tensor) -> Tensor:
    """act'(z) times `along`."""
    if name == "gelu":
        return torch.ops.aten.gelu_backward(along, z)
    return activation_slope(name, z)[1].mul_(along)


def activation_bend(name: str, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """act(z), act'(z) and act''(z) in closed form."""
    if name == "gelu":
        below = torch.erf(z * math.sqrt(0.5)).add_(1).mul_(0.5)
        square = z.square()
        density = (square * -0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
        return z * below, torch.addcmul(below, z, density), square.neg_().add_(2).mul_(density)
    value, slope = activation_slope(name, z)
    if name == "silu":
        gate = torch.sigmoid(z)
        return value, slope, gate * (1 - gate) * (2 + z * (1 - 2 * gate))
    if name == "relu":
        return value, slope, torch.zeros_like(z)
    if name == "tanh":
        return value, slope, -2 * value * slope
    raise ValueError(f"unknown activation {name!r}")


def _opened_by(opens: tuple[bool, ...]) -> list[int]:
    """For each tile, the tile at whose start its anchor was taken; -1 where that was before the first.

    >>> _opened_by((False, True, False))
    [-1, 1, 1]
    """
    places = (n if opening else -1 for n, opening in enumerate(opens))
    return list(itertools.accumulate(places, max))


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row, `[..., C]`."""
    return (a * b).sum(-1)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each memory's matrices, `[M]`."""
    return (a * b).sum((-1, -2))
