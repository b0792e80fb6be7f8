"""Newton-Schulz with a backward in closed form, against the plain steps."""

from __future__ import annotations

import pytest
import torch

from nldsl.codegen.engines.newton_schulz import newton_schulz, orthogonalised
from tests.engines.compare import rand

torch.set_num_threads(1)
SHAPES = [(2, 3, 5, 3), (4, 3, 5), (4, 5, 5), (1, 1, 4), (3, 4, 1), (2, 2), (0, 3, 2)]


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 3, 5)])
def test_singular_values_are_pushed_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalised(rand(*shape, seed=1).detach()))
    assert ((values > 0.68) & (values < 1.13)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_closed_form_is_the_plain_one(shape: tuple[int, ...], steps: int) -> None:
    matrix = rand(*shape, seed=2)
    found, wanted = orthogonalised(matrix, steps), newton_schulz(matrix, steps)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    cotangent = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, matrix, cotangent),
        torch.autograd.grad(wanted, matrix, cotangent),
        rtol=1e-8,
        atol=1e-10,
    )


def test_zeros_stay_zeros_and_have_finite_gradients() -> None:
    matrix = torch.zeros(2, 3, 3, dtype=torch.float64, requires_grad=True)
    found = orthogonalised(matrix)
    assert not found.any()
    (fast,) = torch.autograd.grad(found.sum(), matrix)
    (slow,) = torch.autograd.grad(newton_schulz(matrix).sum(), matrix)
    assert bool(fast.isfinite().all())
    torch.testing.assert_close(fast, slow)


def test_gradients_can_be_differentiated_again() -> None:
    matrix = rand(2, 2, 3, seed=3)
    torch.autograd.gradgradcheck(lambda m: orthogonalised(m, 2), (matrix,))


def test_it_can_be_mapped_over_a_batch() -> None:
    matrices = rand(3, 2, 4, 3, seed=4).detach()
    mapped = torch.func.vmap(torch.func.grad(lambda m: orthogonalised(m).square().sum()))(matrices)
    alone = torch.stack([torch.func.grad(lambda m: newton_schulz(m).square().sum())(m) for m in matrices])
    torch.testing.assert_close(mapped, alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_the_plain_steps(dtype: torch.dtype) -> None:
    matrix = rand(2, 3, 3, seed=5).detach().to(dtype)
    assert torch.equal(orthogonalised(matrix), newton_schulz(matrix))
