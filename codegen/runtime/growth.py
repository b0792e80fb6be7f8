"""Signs that a level diverges, while its numbers are still there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Growth:
    """Watches the updates of one level: those that grow and soon outgrow the weights end in infinities.

    An update is measured against the weights that it changes: the first 64, then one of 16, so that
    watching costs a copy of the weights now and then.  `RISING` updates in a row that are each larger
    than the one before, the last at least `LARGE` times the weights, are told of, once.  Adam's first
    steps on weights near zero are as large as the weights too, but they shrink against them.
    """

    RISING = 4
    LARGE = 0.5

    def __init__(self, name: str, rate: float, weights: list[nn.Parameter]) -> None:
        self.name, self.rate, self.weights = name, rate, weights
        self.seen = 0
        self.rising = 0
        self.before = math.inf
        self.told = False

    def begin(self) -> list[Tensor]:
        """The weights before an update; none where it is not to be measured."""
        self.seen += 1
        wanted = not self.told and (self.seen <= 64 or self.seen % 16 == 0)
        return [weight.detach().clone() for weight in self.weights] if wanted else []

    def look(self, before: list[Tensor], step: int) -> str | None:
        """What to tell of the update that began at `before`, in step `step` (from 1)."""
        if not before:
            return None
        change = [weight.detach() - old for weight, old in zip(self.weights, before, strict=True)]
        moved, size = _norm(change), _norm(before)
        self.rising = self.rising + 1 if moved > self.before else 0
        self.before = moved
        if self.rising < self.RISING or moved < self.LARGE * size:
            return None
        self.told = True
        times = moved / max(size, 1e-30)
        return (
            f"level `{self.name}` may diverge: at step {step} its update is {times:.2g} times as large as "
            f"its weights, the last of {self.rising} that grew; "
            f"lower its rate (`train.py --set levels.{self.name}.rate={self.rate / 10:g}`)"
        )


def _norm(tensors: list[Tensor]) -> float:
    return torch.nn.utils.get_total_norm(tensors).item()
