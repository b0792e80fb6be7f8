"""Polynomial features: all products of up to a few numbers of a vector (Atlas; REF c.8).

    phi(x) = (a_0, a_1 x_i, a_2 x_i x_j, ...)  over  i <= j <= ...

The a_n are learned and begin at 1 / n!, the weights of the series of exp.  A matrix over phi(k) has
C(d + n, n) columns for keys of d numbers: it holds more pairs apart, and no more is learned.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


def monomials(x: Tensor, degree: int) -> list[Tensor]:
    """Products of 0 to `degree` numbers of each vector `[..., d]`: for each n, `[..., C(d + n - 1, n)]`.

    Those of n numbers stand by their first index, then as their rest stands among those of n - 1; so all that
    begin at x_i are x_i times an end of the tensor before.
    """
    found, begins = [torch.ones_like(x[..., :1]), x], list(range(x.shape[-1]))
    for _ in range(2, degree + 1):
        parts = [x[..., i : i + 1] * found[-1][..., begin:] for i, begin in enumerate(begins)]
        begins = [0, *itertools.accumulate(part.shape[-1] for part in parts[:-1])]
        found.append(torch.cat(parts, dim=-1))
    return found


class Polynomial(nn.Module):
    """All monomials of up to `degree` numbers of a vector, each degree with a learned coefficient."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0 / math.factorial(n) for n in range(degree + 1)]))

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[..., d]` to `[..., C(d + degree, degree)]`, low degrees first."""
        found = monomials(x, self.weight.shape[0] - 1)
        return torch.cat(
            [weight * part for weight, part in zip(self.weight.unbind(), found, strict=True)], -1
        )
