"""A declared rule inside the sequence: one function that makes new weights of what is retained.

    step(weight, grad, state, rate, number, ...) -> (weight, state)

It is written for one memory; here it runs over batch and heads, one weight tensor after the other.
What the rule keeps is of its own for each sequence, head and weight tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

KeptAxes = Mapping[str, Sequence[str | int]]
"""For each tensor that a rule keeps its two axes, each `rows`, `4 columns` or a number; a third word says how
it begins where not with zeros: `apart`, with rows that differ, or `drawn 0`, drawn by that seed.
"""


def inner_rule(
    step: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    kept: dict[str, Tensor],
    slopes: dict[str, Tensor],
    held: dict[str, Tensor],
    rate: Tensor,
    number: int,
    inputs: dict[str, Tensor],
    sees: Sequence[str] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the rule adds to the weights `[B, H, ...]` in update `number`, and what it keeps then.

    Args:
        step: see above.
        kept: what retention leaves of the weights, by name.
        slopes: the gradients.
        held: what the rule kept, as `held_by_rule` names it.
        rate: `[B, H]`.
        number: from 1 on since the weights were at their start.
        inputs: what each layer was given, `[B, H, n]`, for rules that see it.
        sees: what of the layers the rule reads: `input`, `input_gram` or `tokens`.
    """
    steps: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    for n, weight in kept.items():
        own = {name.partition(".")[0]: x for name, x in held.items() if name.partition(".")[2] == n}
        given = {"input": inputs[n]} if n in inputs else {}

        def one(
            weight: Tensor, grad: Tensor, own: dict[str, Tensor], rate: Tensor, given: dict[str, Tensor]
        ) -> tuple[Tensor, dict[str, Tensor]]:
            return step(weight, grad, own, rate, number, **_seen(given, sees))

        made, new = torch.func.vmap(torch.func.vmap(one))(weight, slopes[n], own, rate, given)
        steps[n] = made - weight
        after |= {f"{name}.{n}": tensor for name, tensor in new.items()}
    return steps, after


def _seen(given: dict[str, Tensor], sees: Sequence[str]) -> dict[str, Any]:
    """What a layer was given, as rules read it: one row, the mean of x x^T, how many rows there are."""
    made: dict[str, Any] = {}
    if "input" in sees:
        made["inputs"] = given["input"].unsqueeze(0)
    if "input_gram" in sees:
        made["input_gram"] = given["input"].unsqueeze(1) * given["input"]
    if "tokens" in sees and "input" not in sees:
        made["tokens"] = 1
    return made


def held_by_rule(weights: dict[str, Tensor], sizes: KeptAxes, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a rule keeps for each of the weights `[B, H, ...]`: as `state` has it, or as it begins.

    Names are those of the rule's tensor and of the weight: `average.W1`.
    """
    return {
        f"{name}.{n}": state[kept] if (kept := f"rule_{name}.{n}") in state else _first_kept(w, axes)
        for name, axes in sizes.items()
        for n, w in weights.items()
    }


def rule_state(held: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """What a later call needs of a rule: all that it keeps, and the number of its last update."""
    named = {f"rule_{name}": tensor for name, tensor in held.items()}
    return named | {"step": torch.tensor(number, dtype=torch.int64)}


def _first_kept(weight: Tensor, axes: Sequence[str | int]) -> Tensor:
    """One tensor that a rule keeps, `[B, H, ...]`; beside a vector `[B, H, n]` one of the same shape."""
    if weight.dim() == 3:
        return torch.zeros_like(weight)
    named = {"rows": weight.shape[-2], "columns": weight.shape[-1]}
    out, into = (_size(one, named) for one in axes[:2])
    numbers = torch.zeros(out, into, dtype=torch.float64)
    begins = str(axes[2]) if len(axes) > 2 else ""
    if begins.startswith("drawn"):
        generator = torch.Generator().manual_seed(int(begins.split()[1]))
        numbers = torch.randn(out, into, generator=generator, dtype=torch.float64) / math.sqrt(into)
    elif begins == "apart":
        # Plus and minus the identity in turn, scaled down where they repeat: no two rows learn the same.
        row = torch.arange(out)
        numbers[row, row % into] = ((1 - 2 * (row // into % 2)) / (1 + row // (2 * into))).double()
    return numbers.to(weight).expand(*weight.shape[:2], out, into)


def _size(axis: str | int, named: dict[str, int]) -> int:
    if isinstance(axis, int):
        return axis
    many, _, name = axis.rpartition(" ")
    return int(many or 1) * named[name]
