"""Matrix memories with momentum against the token loop."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.momentum import heavy_ball
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=60, deadline=None)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 11),
        "dim_k": st.integers(1, 4),
        "dim_v": st.integers(1, 4),
        "seed": st.integers(0, 10_000),
        "key_scale": st.sampled_from([1.0, 2.0]),
    }
)
cutting = st.lists(st.integers(0, 11), max_size=3)
GRADIENTS = ["through", "first_order", "stop", ("through", 1), ("through", 3), ("through", 4)]


def _words(objective: str, erase: bool, anchor: str, period: int, read: str) -> dict[str, Any]:
    """The token loop's words for the same memory."""
    words: dict[str, Any] = {"objective": objective, "rule": "dgd" if erase else "gd", "read": read}
    if anchor == "frozen":
        words["anchor"] = period if period > 1 else "current"
    else:
        words["anchor"] = anchor
    if read == "boundary":
        if period == 1:
            words["read"] = "before"
        elif anchor != "frozen":
            words["update"] = period
    return words


@FEW
@given(
    shapes,
    st.sampled_from(["l2", "dot", "oja"]),
    st.booleans(),
    st.sampled_from(["retained", "current", "frozen"]),
    st.integers(1, 6),
    st.sampled_from(["after", "before", "boundary"]),
    st.booleans(),
    st.integers(1, 6),
    st.sampled_from(GRADIENTS),
    cutting,
)
def test_heavy_ball_is_the_token_loop(
    shape: dict[str, Any],
    objective: str,
    erase: bool,
    anchor: str,
    period: int,
    read: str,
    moving: bool,
    tile: int,
    gradient: Any,
    cuts: list[int],
) -> None:
    if anchor != "frozen" and read != "boundary":
        period = 1
    erase = erase and objective != "oja"
    tensors = inputs(**shape, momentum=moving)
    start = rand(shape["heads"], shape["dim_v"], shape["dim_k"], seed=shape["seed"] + 9)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    fast = piecewise(
        heavy_ball,
        tensors,
        cuts,
        start=start,
        objective=objective,
        erase=erase,
        anchor=anchor,
        period=period,
        read=read,
        gradient=gradient,
        tile=tile,
    )
    words = _words(objective, erase, anchor, period, read)
    slow = piecewise(token_loop, tensors, cuts, start=start, gradient=gradient, **words)
    assert_same(fast, slow, tensors | {"start": start})


RULES = [("l2", False), ("l2", True), ("dot", True), ("oja", False)]


@pytest.mark.parametrize(
    ("rule", "anchor", "gradient"),
    list(itertools.product(RULES, ["retained", "current", "frozen"], GRADIENTS[:5])),
)
def test_every_combination_once(rule: tuple[str, bool], anchor: str, gradient: Any) -> None:
    objective, erase = rule
    tensors = inputs(2, 2, 9, 3, 2, seed=3, momentum=True)
    start = rand(2, 2, 3, seed=8)
    period = 4 if anchor == "frozen" else 1
    words = _words(objective, erase, anchor, period, "after")
    fast = heavy_ball(
        **tensors,
        start=start,
        objective=objective,
        erase=erase,
        anchor=anchor,
        period=period,
        gradient=gradient,
        tile=4,
    )
    assert_same(
        fast, token_loop(**tensors, start=start, gradient=gradient, **words), tensors | {"start": start}
    )


@pytest.mark.parametrize("objective", ["l2", "dot", "oja"])
def test_gates_that_are_not_given_are_one_and_momentum_is_none(objective: str) -> None:
    tensors = inputs(1, 2, 7, 3, 2, seed=5, key_scale=0.5)
    plain = {n: tensors[n] for n in ("query", "key", "value")}
    fast = heavy_ball(**plain, objective=objective, tile=3)
    assert_same(fast, token_loop(**plain, objective=objective), plain)


def test_closed_gates_keep_nothing() -> None:
    tensors = inputs(1, 1, 6, 3, 2, seed=6, momentum=True)
    tensors |= {
        n: torch.zeros(1, 1, 6, dtype=torch.float64, requires_grad=True) for n in ("retain", "momentum")
    }
    for erase in (False, True):
        fast = heavy_ball(**tensors, erase=erase, tile=4)
        assert_same(fast, token_loop(**tensors, rule="dgd" if erase else "gd"), tensors)


def test_half_precision_runs_forward_and_backward() -> None:
    made = inputs(1, 2, 9, 4, 4, seed=8, momentum=True)
    tensors = {n: t.detach().bfloat16().requires_grad_() for n, t in made.items()}
    read, _ = heavy_ball(**tensors, tile=4)
    exact, _ = heavy_ball(**{n: t.double() for n, t in tensors.items()}, tile=4)
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.double(), exact, rtol=0.1, atol=0.1)
    assert all(
        bool(g.isfinite().all()) for g in torch.autograd.grad(read.float().sum(), list(tensors.values()))
    )


@pytest.mark.parametrize(("objective", "erase"), RULES)
def test_it_is_twice_differentiable(objective: str, erase: bool) -> None:
    tensors = inputs(1, 1, 3, 2, 2, seed=2, momentum=True)

    def run(*given: torch.Tensor) -> torch.Tensor:
        named: dict[str, Any] = dict(zip(tensors, given, strict=True))
        return heavy_ball(**named, objective=objective, erase=erase, tile=2)[0]

    for name in ("rate", "retain", "momentum"):  # finite differences stay in their range
        tensors[name] = rand(1, 1, 3, seed=len(name), low=0.3, high=0.7)
    assert torch.autograd.gradgradcheck(run, tuple(tensors.values()))
