"""Tiles with standing gradients in closed form, against the same in steps that autograd differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nldsl.codegen.engines.frozen import frozen
from nldsl.codegen.engines.frozen_passes import activation_bend
from nldsl.codegen.engines.frozen_plain import FrozenCoefficients, FrozenTiling, frozen_tiles_plainly
from nldsl.codegen.engines.frozen_tiles import frozen_tiles
from nldsl.codegen.engines.layers import activation_slope
from nldsl.codegen.engines.reference import token_loop
from tests.engines import compare

ACTIVATIONS = ("gelu", "silu", "tanh", "relu")


def tiling(**settings: Any) -> FrozenTiling:
    usual: dict[str, Any] = {"depth": 2, "objective": "l2", "residual": True, "activation": "gelu"}
    given: dict[str, Any] = {**usual, "read": "after", "opens": (True, True), **settings}
    return FrozenTiling(ends=(False,) * len(given["opens"]), **given)


def inputs(
    one: FrozenTiling, seed: int = 0, size: int = 3, width: int = 2, memories: int = 2, *, moving: bool = True
) -> list[Tensor]:
    """Queries, keys, values, the coefficients and the weights; nothing about them is special."""
    generator = torch.Generator().manual_seed(seed)
    count = len(one.opens)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    pairs = [draw(count, memories, size, width) for _ in range(3)]
    rows = [draw(count, memories, size + 1, 1), draw(count, memories, size + 1, size)]
    if moving:
        rows += [
            draw(count, memories, size + 1, 1),
            draw(count, memories, 1, 1),
            draw(count, memories, 1, size),
        ]
    hidden = width + 1
    sizes = {1: [(width, width)], 2: [(hidden, width), (width, hidden)]}
    sizes[3] = [(hidden, width), (hidden, hidden), (width, hidden)]
    shapes = sizes[one.depth] * (3 if moving else 2)
    return [*pairs, *rows, *(draw(memories, *shape) for shape in shapes)]


def runner(
    one: FrozenTiling, *, moving: bool = True, plain: bool = False
) -> Callable[..., tuple[Tensor, ...]]:
    """A function of the tensors of `inputs`, in one of the two ways."""

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        end = 8 if moving else 5
        layers = [given[at : at + one.depth] for at in range(end, len(given), one.depth)]
        way = frozen_tiles_plainly if plain else frozen_tiles
        read, running, anchor, moments = way(
            (given[0], given[1], given[2]),
            FrozenCoefficients(*given[3:end]),
            layers[0],
            layers[1],
            layers[2] if moving else None,
            one,
        )
        return read, *running, *anchor, *(moments or ())

    return run


def agree(one: FrozenTiling, tensors: list[Tensor], *, moving: bool) -> None:
    found = [runner(one, moving=moving, plain=plain)(*tensors) for plain in (False, True)]
    assert found[0][0].grad_fn is not None
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    cotangents = [torch.randn_like(x) for x in found[1]]
    grads = [torch.autograd.grad(x, tensors, cotangents, materialize_grads=True) for x in found]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


@given(
    seed=st.integers(0, 2**16),
    opens=st.lists(st.booleans(), min_size=1, max_size=4),
    depth=st.integers(1, 3),
    objective=st.sampled_from(("l2", "dot")),
    residual=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    read=st.sampled_from(("after", "before", "boundary")),
    moving=st.booleans(),
    size=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_values_and_gradients_agree(
    seed: int, opens: list[bool], moving: bool, size: int, **settings: Any
) -> None:
    one = tiling(opens=tuple(opens), **settings)
    agree(one, inputs(one, seed, size, moving=moving), moving=moving)


@pytest.mark.parametrize("which", ["read", "weights", "anchor", "momentum"])
def test_only_one_result_in_the_loss(which: str) -> None:
    one = tiling(opens=(False, True, False))
    tensors = inputs(one)
    place = {"read": 0, "weights": 1, "anchor": 4, "momentum": 6}[which]
    grads = [
        torch.autograd.grad(
            runner(one, plain=plain)(*tensors)[place].square().sum(), tensors, materialize_grads=True
        )
        for plain in (False, True)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("read", ["after", "boundary"])
def test_the_backward_can_be_differentiated(read: str) -> None:
    one = tiling(opens=(True, False), activation="tanh", read=read)
    tensors = [x.detach().mul(0.3).requires_grad_() for x in inputs(one, size=2, width=1, memories=1)]
    assert torch.autograd.gradgradcheck(runner(one), tensors, atol=1e-6)


def test_function_transforms_pass_through() -> None:
    one = tiling(opens=(False, True))
    tensors = [torch.stack((x, 0.5 * x)).detach() for x in inputs(one)]

    def slopes(run: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        return torch.func.grad(lambda *x: run(*x)[0].square().sum(), argnums=tuple(range(len(tensors))))

    runs = [runner(one, plain=plain) for plain in (False, True)]
    torch.testing.assert_close(*(torch.func.vmap(run)(*tensors) for run in runs))
    torch.testing.assert_close(*(torch.func.vmap(slopes(run))(*tensors) for run in runs))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bends_are_slopes_of_slopes(name: str) -> None:
    z = torch.linspace(-3, 3, 12, dtype=torch.float64).requires_grad_()
    value, slope, bend = activation_bend(name, z.detach())
    torch.testing.assert_close((value, slope), activation_slope(name, z.detach()))
    (expected,) = torch.autograd.grad((activation_slope(name, z)[1] + 0 * z).sum(), z)
    torch.testing.assert_close(bend, expected)


@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("objective", ["l2", "dot"])
def test_a_period_of_one_token_is_the_token_loop(read: str, objective: str) -> None:
    tensors = compare.inputs(2, 1, 5, 2, 2, seed=3, momentum=True)
    start = (compare.rand(1, 3, 2, seed=4), compare.rand(1, 2, 3, seed=5))
    words: dict[str, Any] = {"start": start, "objective": objective, "read": read}
    fast: dict[str, Any] = {**words, "map": "mlp", "residual": True, "period": 1}
    slow: dict[str, Any] = {**words, "map": {"kind": "mlp", "hidden": 3, "residual": True}}
    expected, state = token_loop(**tensors, **slow, anchor="current")
    found, own = frozen(**tensors, **fast)
    torch.testing.assert_close((found, own), (expected, state))
    leaves = [*tensors.values(), *start]
    cotangent = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, cotangent, allow_unused=True),
        torch.autograd.grad(expected, leaves, cotangent, allow_unused=True),
    )
    pieces, last = compare.piecewise(frozen, tensors, (2, 3), **fast)
    torch.testing.assert_close((pieces, last), (expected, state))
