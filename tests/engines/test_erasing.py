"""The delta tiles in closed form, against the same tiles in steps that autograd differentiates."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nldsl.codegen.engines import erasing
from nldsl.codegen.engines.decay import decay_matrix
from nldsl.codegen.engines.erasing import ErasingTiles, closed_form_fits, erasing_plainly

Run = Callable[..., tuple[Tensor, Tensor]]
MODES = tuple(product((True, False), (True, False)))


def inputs(seed: int, count: int, memories: int, size: int, keys: int, values: int) -> list[Tensor]:
    """Queries over keys, values, rates, gates and weights; keys are not unit, some gates 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, memories, 2 * size, keys), (count, memories, size, values), (memories, values, keys))
    both, value, weights = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    rates, gates = (
        torch.rand(count, memories, size, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    gates = gates.where(gates > 0.2, 0.0).where(gates < 0.8, 1.0)
    return [x.requires_grad_() for x in (both, value, rates, gates, weights)]


def runner(*, retained: bool, after: bool, plain: bool) -> Run:
    """Tiles from gates, in one of the two ways."""

    def run(
        both: Tensor, values: Tensor, rates: Tensor, gates: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        tiles = (both, values, rates, decay_matrix(gates), weights)
        if plain:
            return erasing_plainly(*tiles, retained=retained, after=after)
        found = ErasingTiles.apply(*tiles, retained, after)
        return found[0], found[1]

    return run


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
    retained=st.booleans(),
    after=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_values_and_gradients_agree(
    seed: int, sizes: tuple[int, int, int, int, int], retained: bool, after: bool
) -> None:
    tensors = inputs(seed, *sizes)
    found = [runner(retained=retained, after=after, plain=plain)(*tensors) for plain in (False, True)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    weights = [torch.randn_like(x) for x in found[0]]
    grads = [torch.autograd.grad(x, tensors, weights) for x in found]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_tiles_in_groups_are_the_same_tiles(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = inputs(2, 5, 2, 3, 4, 2)
    run = runner(retained=True, after=False, plain=False)
    whole = run(*tensors)
    grads = torch.autograd.grad(whole, tensors, [torch.ones_like(x) for x in whole])
    matrix = 2 * 4 * 6 * 8  # bytes of queries and keys of one tile
    monkeypatch.setattr(erasing, "GROUP_BYTES", at_once * matrix)
    found = run(*tensors)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, [torch.ones_like(x) for x in found]), grads
    )


@pytest.mark.parametrize(("retained", "after"), MODES)
def test_only_one_result_in_the_loss(retained: bool, after: bool) -> None:
    for one in (0, 1):
        tensors = inputs(1, 2, 1, 3, 2, 2)
        grads = [
            torch.autograd.grad(
                runner(retained=retained, after=after, plain=plain)(*tensors)[one].square().sum(),
                tensors,
                materialize_grads=True,
            )
            for plain in (False, True)
        ]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize(("retained", "after"), MODES)
def test_the_backward_can_be_differentiated(retained: bool, after: bool) -> None:
    tensors = inputs(2, 2, 1, 2, 2, 1)
    with torch.no_grad():
        tensors[3].clamp_(0.1, 0.9)
    assert torch.autograd.gradgradcheck(runner(retained=retained, after=after, plain=False), tensors)


def test_function_transforms_pass_through() -> None:
    tensors = [torch.stack((x, 0.5 * x)).detach() for x in inputs(3, 2, 2, 3, 2, 2)]

    def slopes(run: Run) -> Callable[..., tuple[Tensor, ...]]:
        return torch.func.grad(lambda *x: run(*x)[0].square().sum(), argnums=(0, 1, 2, 3, 4))

    runs = [runner(retained=True, after=True, plain=plain) for plain in (False, True)]
    torch.testing.assert_close(*(torch.func.vmap(run)(*tensors) for run in runs))
    torch.testing.assert_close(*(torch.func.vmap(slopes(run))(*tensors) for run in runs))
    fixed = (None, 0, 0, 0, None)
    given_once = [tensors[0][0], *tensors[1:4], tensors[4][0]]
    torch.testing.assert_close(*(torch.func.vmap(run, fixed)(*given_once) for run in runs))


def test_mixed_and_half_precision_take_the_plain_form() -> None:
    whole, half = torch.ones(1), torch.ones(1, dtype=torch.bfloat16)
    assert closed_form_fits(whole, whole)
    assert not closed_form_fits(whole, half)
    assert not closed_form_fits(half, half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not closed_form_fits(whole)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, erasing.TRACED_TILES + 1])
def test_a_compiler_changes_nothing(count: int) -> None:
    """Few tiles are traced, and it steps around more of them."""

    def run(keys: Tensor, values: Tensor, rates: Tensor, decays: Tensor, weights: Tensor) -> Tensor:
        return erasing.erasing_tiles(keys, keys, values, rates, decays, weights, retained=True, after=True)[0]

    generator = torch.Generator().manual_seed(3)
    shapes = ((1, 2, count, 4, 3), (1, 2, count, 4, 5), (1, 2, count, 4))
    keys, values, rates = (torch.rand(s, generator=generator, dtype=torch.float64) for s in shapes)
    tensors = [keys, values, rates, decay_matrix(rates), torch.zeros(1, 2, 5, 3, dtype=torch.float64)]
    tensors = [x.requires_grad_() for x in tensors]
    found = [way(*tensors) for way in (run, torch.compile(run, dynamic=False))]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*[torch.autograd.grad(x.sum(), tensors) for x in found])
