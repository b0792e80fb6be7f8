"""Comparing a memory of ours with a function of another package: reads, states and gradients in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nldsl

torch.set_num_threads(1)

Result = tuple[Tensor, Mapping[str, Tensor]]
MEMORIES = Path(__file__).with_name("memories.nl")
LOWERINGS = ("reference", "chunked")
# What is smaller than this counts as this large: rounding of sums whose terms cancel is no difference.
SMALL = 1e-2


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes:
        name: what of theirs it is, as the table prints it.
        package: the distribution it comes from.
        ours: a result for a lowering and the leaves.
        theirs: a result for the leaves, in our shapes; its states are those of ours with the same names.
        leaves: makes the tensors that gradients are taken for.
        differs: conventions in which theirs departs from ours.
        memory: what of ours it is, as the table prints it.
        lowerings: those compared.
        tolerance: the largest relative difference that the tests let pass.
        gradients: theirs can be differentiated.
    """

    name: str
    package: str
    ours: Callable[[str, dict[str, Tensor]], Result]
    theirs: Callable[[dict[str, Tensor]], Result]
    leaves: Callable[[], dict[str, Tensor]]
    differs: str
    memory: str
    lowerings: tuple[str, ...] = LOWERINGS
    tolerance: float = 1e-11
    gradients: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest differences found, each relative to the largest entry of theirs."""

    read: float
    state: float | None
    gradient: float | None

    @property
    def worst(self) -> float:
        return max(self.read, self.state or 0.0, self.gradient or 0.0)


def difference(case: Case, lowering: str) -> Difference:
    """Run both sides and compare what they have in common."""
    leaves = case.leaves()
    ours, theirs = case.ours(lowering, leaves), case.theirs(leaves)
    shared = sorted(theirs[1])
    sides = (ours, theirs) if case.gradients else ()
    gradients = [_gradients(read, [states[n] for n in shared], leaves) for read, states in sides]
    return Difference(
        _relative(ours[0], theirs[0]),
        max((_relative(ours[1][n], theirs[1][n]) for n in shared), default=None),
        max((_relative(one, other) for one, other in zip(*gradients, strict=True)), default=None),
    )


def _gradients(read: Tensor, states: list[Tensor], leaves: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Of a number that depends unevenly on every entry of the read and of the states."""
    total = read.new_zeros(())
    for n, x in enumerate([read, *states]):
        ramp = torch.linspace(0.3, 1.1, x.numel(), dtype=x.dtype).reshape(x.shape)
        total = total + (n + 1) * (x.sin() * ramp).sum()
    return torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)


def _relative(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape, f"{tuple(one.shape)} against {tuple(other.shape)}"
    apart = float((one - other).detach().abs().max())
    return apart and apart / max(float(other.detach().abs().max()), SMALL)


@cache
def core(memory: str, lowering: str) -> Any:
    """A memory of `memories.nl` as a function."""
    return nldsl.core(MEMORIES, lowering, memory=memory)  # type: ignore[arg-type]


def called(memory: str) -> Callable[[str, dict[str, Tensor]], Result]:
    """Ours for a memory of `memories.nl`: the leaves are its inputs, `start` among them."""
    return lambda lowering, leaves: core(memory, lowering)(**leaves)


def drawn(seed: int, *shape: int, low: float | None = None, high: float = 1.0) -> Tensor:
    """A float64 leaf: normal, or uniform in [low, high]."""
    generator = torch.Generator().manual_seed(seed)
    if low is None:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    made = torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low
    return made.requires_grad_()


def pairs(
    tokens: int, dim_k: int = 6, dim_v: int = 5, *, batch: int = 2, heads: int = 2
) -> dict[str, Tensor]:
    """Queries, keys of length about 1, and values."""
    key = drawn(1, batch, heads, tokens, dim_k).detach() / dim_k**0.5
    return {
        "query": drawn(2, batch, heads, tokens, dim_k),
        "key": key.requires_grad_(),
        "value": drawn(3, batch, heads, tokens, dim_v),
    }
