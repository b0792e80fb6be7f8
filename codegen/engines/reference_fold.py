"""The fold of stacked memories, token by token: the oracle of the closed forms in `deep_dgd` and `frozen`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nldsl.codegen.engines.reference import token_loop

Layers = tuple[Tensor, ...]


def token_fold(
    running: Layers,
    anchor: Layers,
    key: Tensor,
    target: Tensor,
    rate: Tensor,
    retain: Tensor,
    *,
    map: str | dict[str, Any],
    objective: str,
    rule: str,
    moments: Layers | None = None,
    momentum: Tensor | None = None,
) -> tuple[Layers, Layers | None]:
    """Write one piece of a period into M memories, without reads.

    Args:
        running: weights before the piece, `[M, B, H, out, in]`, first layer first.
        anchor: weights at which gradients are taken, the same shapes.
        key: `[B, H, T, Dk]`, shared by all memories, or `[M, B, H, T, Dk]`.
        target: `[M, B, H, T, Dv]`, or `[B, H, T, Dv]` where all share one; a constant of the objective.
        rate: `[B, H, T]`.
        retain: `[B, H, T]`.
        map: see `maps`.
        objective: see `objectives`.
        rule: `gd`, `dgd`, `dgd_explicit` or `dgd_first_layer`.
        moments: momentum before the piece, as `running`.
        momentum: `[B, H, T]`.

    Returns:
        The weights and the momentum after the piece.
    """
    stack = running[0].shape[:2]
    names = ["W"] if len(running) == 1 else [f"W{n + 1}" for n in range(len(running))]

    def shared(x: Tensor) -> Tensor:
        return x.unsqueeze(0).expand(stack[0], *x.shape).flatten(0, 1)

    state = {n: w.flatten(0, 1) for n, w in zip(names, running, strict=True)}
    state |= {f"{n}_start": w.flatten(0, 1) for n, w in zip(names, anchor, strict=True)}
    state["phase"] = torch.tensor(1)
    if moments is not None:
        state |= {n.replace("W", "S"): s.flatten(0, 1) for n, s in zip(names, moments, strict=True)}
    open_period = key.shape[-2] + 2  # longer than the piece, so that the anchor stays
    targets = target.flatten(0, 1) if target.dim() == 5 else shared(target)
    keys = key.flatten(0, 1) if key.dim() == 5 else shared(key)
    _, after = token_loop(
        keys,
        keys,
        targets,
        shared(rate),
        shared(retain),
        None if momentum is None else shared(momentum),
        state=state,
        map=map,
        objective=objective,
        rule=rule,
        update=open_period,
        anchor=open_period,
    )
    weights = tuple(after[n].unflatten(0, stack) for n in names)
    if moments is None:
        return weights, None
    return weights, tuple(after[n.replace("W", "S")].unflatten(0, stack) for n in names)
