"""Polynomial features against their definition: one product for each combination of features."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from nldsl.codegen.engines.polynomial import Polynomial, monomials
from tests.engines.compare import rand

torch.set_num_threads(1)


@pytest.mark.parametrize(("width", "degree"), [(1, 1), (1, 4), (2, 3), (3, 1), (4, 2), (5, 3), (2, 5)])
def test_monomials_are_products_of_each_combination(width: int, degree: int) -> None:
    x = rand(2, 3, width, seed=1)
    found = monomials(x, degree)
    assert len(found) == degree + 1
    assert sum(part.shape[-1] for part in found) == math.comb(width + degree, degree)
    for n, part in enumerate(found):
        chosen = list(itertools.combinations_with_replacement(range(width), n))
        wanted = torch.stack([x[..., list(one)].prod(-1) for one in chosen], dim=-1)
        torch.testing.assert_close(part, wanted)


def test_each_degree_has_a_coefficient_that_begins_as_in_the_series_of_exp() -> None:
    module = Polynomial(3).double()
    torch.testing.assert_close(module.weight.detach(), torch.tensor([1, 1, 1 / 2, 1 / 6]).double())
    x = rand(4, 1, seed=2)
    torch.testing.assert_close(module(x).sum(-1), (1 + x + x**2 / 2 + x**3 / 6)[:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_gradients_of_features_and_coefficients(degree: int) -> None:
    module = Polynomial(degree).double()
    x = rand(2, 3, seed=3)

    def features(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {"weight": weight}, (x,))

    weight = rand(degree + 1, seed=4)
    assert torch.autograd.gradcheck(features, (x, weight))
    assert torch.autograd.gradgradcheck(features, (x, weight))


def test_no_tokens_make_no_features() -> None:
    assert Polynomial(2)(torch.zeros(1, 2, 0, 3)).shape == (1, 2, 0, 10)
