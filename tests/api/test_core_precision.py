"""Cores in half precision, against the token loop in float64: coarse, but finite and the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

import nldsl
from tests.api.test_cores import made, memories

torch.set_num_threads(1)
TOKENS, EARLY = 40, 8
VECTORS = ("query", "key", "value", "erase", "erase_into")


def tensors(core: nldsl.Core) -> dict[str, Any]:
    """Vectors of length 1 and small gates in float64, but with numbers that bfloat16 holds."""
    torch.manual_seed(0)
    given: dict[str, Any] = {}
    for name in core.inputs:
        wide = name in VECTORS or getattr(core.memory.core, name, "") == "channel"
        shape = (1, 2, TOKENS, *((8,) if wide else ()))
        given[name] = normalize(torch.randn(shape), dim=-1) if name in VECTORS else 0.5 * torch.rand(shape)
        if name == "retain":  # less, and Moneta's weights, which are 1 / |A|^2 times A, leave float16
            given[name] = 0.5 + given[name]
        if core.memory.core.normalise and name in ("query", "key"):  # a divisor near 0 asks for every digit
            given[name] = given[name].abs()
    return {n: x.bfloat16().double() for n, x in given.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("lowering", ["chunked", "reference"])
@pytest.mark.parametrize("name", memories())
def test_half_precision_is_the_same_function(name: str, lowering: str, dtype: torch.dtype) -> None:
    core = made(name, lowering)
    given = tensors(core)
    exact, _ = made(name, "reference")(**given)
    given = {n: x.to(dtype) for n, x in given.items()}
    read, state = core(**given)
    assert read.dtype == dtype
    assert all(bool(x.isfinite().all()) for x in state.values())
    assert 0.5 < read.double().norm() / exact.norm() < 2.0
    # Later on, deep maps are a matter of the last digits: even float32 drifts away from float64.
    early, wanted = read[:, :, :EARLY].double(), exact[:, :, :EARLY]
    assert (early - wanted).norm() / wanted.norm() < 0.2
