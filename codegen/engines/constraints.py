"""Constraints on written weights, and the state that they need.

`norm` divides each weight tensor by its norm.  `softmax` and `lq` make the weights a function of an
accumulator A, which is what is retained and written: W = softmax(A) over each row (Memora), and
W = A / |A|_q^(q - 2) (Moneta; both of Miras).  Each is due after every N tokens; in between, accumulators
run on while the weights stand still.  All tensors are `[M, ...]` or `[B, H, ...]`: `lead` counts the axes
that tell memories apart.  Norms and powers of half precision are taken in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.parts import full_precision

Constraint = tuple[str, float | None, int]
MapWeights = dict[str, Tensor]


def link_of(constrain: tuple[Constraint, ...]) -> Constraint | None:
    """The constraint with an accumulator, where there is one."""
    return next((step for step in constrain if step[0] != "norm"), None)


def norm_is_due(constrain: tuple[Constraint, ...], count: int) -> bool:
    """Whether weights are divided by their norm after `count` tokens."""
    return any(name == "norm" and count % every == 0 for name, _, every in constrain)


def of_unit_norm(weights: MapWeights, lead: int) -> MapWeights:
    """Each memory's tensors divided by their norms."""
    wide = {n: full_precision(w) for n, w in weights.items()}
    return {n: (w / entry_norm(w, 2.0, lead).clamp(min=1e-12)).to(weights[n].dtype) for n, w in wide.items()}


def linked_weights(link: Constraint, accumulators: MapWeights, lead: int) -> MapWeights:
    """The weights that the accumulators stand for."""
    name, order, _ = link
    if name == "softmax":
        return {n: a.softmax(dim=-1) for n, a in accumulators.items()}
    if name != "lq" or order is None:
        raise ValueError(f"unknown constraint {name!r}")
    wide = {n: full_precision(a) for n, a in accumulators.items()}
    made = {n: a / entry_norm(a, order, lead).clamp(min=1e-12).pow(order - 2) for n, a in wide.items()}
    return {n: w.to(accumulators[n].dtype) for n, w in made.items()}


def entry_norm(weights: Tensor, order: float, lead: int) -> Tensor:
    """The entry-wise norm of each memory's tensor, kept as axes of length 1."""
    return torch.linalg.vector_norm(weights, order, dim=tuple(range(lead, weights.dim())), keepdim=True)


def weights_at_start(start: Any, shapes: dict[str, tuple[int, ...]], key: Tensor) -> MapWeights:
    """The weights before the first token, `[B, H, ...]` for keys `[B, H, T, Dk]`.

    Args:
        start: `[H, ...]` or `[B, H, ...]`: a tensor for a map with one weight, a dict by name, or a tuple in
            the order of `shapes`; zeros where not given.
        shapes: name and shape of each weight of one memory.
        key: says how many memories there are.
    """
    lead = key.shape[:2]
    if start is None:
        return {n: key.new_zeros(*lead, *shape) for n, shape in shapes.items()}
    listed = (start,) if isinstance(start, Tensor) else start
    given = listed if isinstance(listed, dict) else dict(zip(shapes, listed, strict=True))
    return {n: given[n].expand(*lead, *shape) for n, shape in shapes.items()}


def beside(letter: str, name: str) -> str:
    """`W1` as `S1`: the name of what goes with a weight."""
    return letter + name.removeprefix("W")
