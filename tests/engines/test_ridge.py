"""Ridge memories against the token loop, and the token loop against the regression it solves."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.ridge import ridge, ridge_solve
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=40, deadline=None)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 11),
        "dim_k": st.integers(1, 4),
        "dim_v": st.integers(1, 3),
        "seed": st.integers(0, 10_000),
        "key_scale": st.sampled_from([1.0, 2.0]),
    }
)


@FEW
@given(
    shapes,
    st.sampled_from([0.2, 1.0]),
    st.integers(1, 5),
    st.sampled_from(["after", "before"]),
    st.sampled_from(["through", "first_order", "stop", ("through", 1), ("through", 4)]),
    st.integers(1, 6),
    st.lists(st.integers(0, 11), max_size=3),
)
def test_ridge_is_the_token_loop(
    shape: dict[str, Any],
    strength: float,
    period: int,
    read: str,
    gradient: Any,
    tile: int,
    cuts: list[int],
) -> None:
    tensors = inputs(**shape)
    start = rand(shape["heads"], shape["dim_v"], shape["dim_k"], seed=shape["seed"] + 9)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    read = "boundary" if period > 1 else read
    fast = piecewise(
        ridge,
        tensors,
        cuts,
        start=start,
        strength=strength,
        period=period,
        read=read,
        gradient=gradient,
        tile=tile,
    )
    words: dict[str, Any] = {"rule": "ridge", "rule_parameter": strength, "gradient": gradient}
    slow = piecewise(token_loop, tensors, cuts, start=start, update=period, read=read, **words)
    assert_same(fast, slow, tensors | {"start": start}, tolerance=1e-8)


def test_what_is_read_solves_the_regression() -> None:
    tensors = inputs(1, 1, 7, 3, 2, seed=3)
    start, strength = rand(1, 2, 3, seed=4), 0.3
    read, state = token_loop(**tensors, start=start, rule="ridge", rule_parameter=strength)
    sums, grams = state["W"][0, 0], state["K"][0, 0]
    eye = torch.eye(3, dtype=sums.dtype)
    weights = (sums @ torch.linalg.inv(grams + strength * eye)).detach().requires_grad_()
    keys, values, query = (tensors[n][0, 0] for n in ("key", "value", "query"))
    rates, retain = tensors["rate"][0, 0], tensors["retain"][0, 0]
    share = rates * torch.stack([retain[i + 1 :].prod() for i in range(7)])
    fitted = 0.5 * (share * (keys @ weights.T - values).square().sum(-1)).sum()
    cost = fitted + 0.5 * strength * (weights - retain.prod() * start[0]).square().sum()
    (slope,) = torch.autograd.grad(cost, weights)
    assert slope.abs().max() < 1e-12
    torch.testing.assert_close(read[0, 0, -1], weights @ query[-1], rtol=1e-9, atol=1e-9)


def test_the_first_read_before_any_pair_is_that_of_the_start() -> None:
    tensors, start = inputs(1, 2, 3, 4, 2, seed=5), rand(2, 2, 4, seed=6)
    read, _ = ridge(**tensors, start=start, strength=0.5, read="before")
    expected = (start @ tensors["query"][0, :, 0].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(read[0, :, 0], expected)


def test_solves_are_twice_differentiable() -> None:
    keys, queries = rand(2, 3, 2, seed=7), rand(2, 3, 2, seed=8)
    rates, rows = rand(2, 3, seed=9, low=0.1), rand(2, 3, 4, seed=10, low=0.1)
    grams = rand(2, 2, 2, seed=11)

    def solve(*given: torch.Tensor) -> torch.Tensor:
        sums = given[3] @ given[3].transpose(-1, -2)
        return ridge_solve(given[0], given[1], given[2].tril(1), sums, given[4], 0.5)

    leaves = (keys, rates, rows, grams, queries)
    assert torch.autograd.gradcheck(solve, leaves)
    assert torch.autograd.gradgradcheck(solve, leaves)


def test_half_precision_runs_forward_and_backward() -> None:
    tensors = {n: t.detach().bfloat16().requires_grad_() for n, t in inputs(1, 2, 9, 4, 4, seed=8).items()}
    read, _ = ridge(**tensors, strength=1.0, tile=4)
    exact, _ = ridge(**{n: t.double() for n, t in tensors.items()}, strength=1.0, tile=4)
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.double(), exact, rtol=0.1, atol=0.1)
    grads = torch.autograd.grad(read.float().sum(), list(tensors.values()))
    assert all(bool(g.isfinite().all()) for g in grads)
