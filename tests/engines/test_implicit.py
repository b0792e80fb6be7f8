"""Implicit steps: engines of gradient steps with a smaller rate, against the token loop and the minimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nldsl.codegen.engines.delta import delta
from nldsl.codegen.engines.frozen import frozen
from nldsl.codegen.engines.hebbian import hebbian
from nldsl.codegen.engines.implicit import implicit_rate
from nldsl.codegen.engines.momentum import heavy_ball
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import Core, assert_same, inputs, rand


def _implicit(core: Core) -> Core:
    def run(*, key: torch.Tensor, rate: torch.Tensor, **rest: Any) -> Any:
        return core(key=key, rate=implicit_rate(key, rate), **rest)

    return run


@pytest.mark.parametrize(
    ("core", "given", "words"),
    [
        (delta, {}, {}),
        (delta, {"erase": "current"}, {"anchor": "current"}),
        (hebbian, {}, {"objective": "dot"}),
        (heavy_ball, {}, {}),
        (heavy_ball, {"anchor": "current"}, {"anchor": "current"}),
        (frozen, {"period": 3}, {"anchor": 3}),
    ],
)
def test_an_implicit_step_has_a_smaller_rate(
    core: Callable[..., Any], given: dict[str, Any], words: dict[str, Any]
) -> None:
    tensors = inputs(2, 2, 8, 3, 2, seed=4, key_scale=2.0, momentum=core is heavy_ball)
    tensors["rate"] = rand(2, 2, 8, seed=9, low=0.0, high=5.0)  # an explicit step would run away
    start = rand(2, 2, 3, seed=5)
    fast = _implicit(core)(**tensors, start=start, tile=3, **given)
    slow = token_loop(**tensors, start=start, rule="gd_implicit", **words)
    assert_same(fast, slow, tensors | {"start": start})


def test_a_rate_that_is_not_given_is_one() -> None:
    key = rand(1, 2, 3, 4, seed=1)
    torch.testing.assert_close(implicit_rate(key), implicit_rate(key, torch.ones_like(key[..., 0])))


def test_the_step_reaches_the_minimum_of_the_proximal_objective() -> None:
    key, value, before = rand(3, seed=1), rand(2, seed=2), rand(2, 3, seed=3)
    rate = torch.tensor(0.7, dtype=torch.float64)
    own = implicit_rate(key[None, None, None], rate[None, None, None])[0, 0, 0]
    after = (before - own * torch.outer(before @ key - value, key)).detach().requires_grad_()
    cost = 0.5 * (after @ key - value).square().sum() + (after - before).square().sum() / (2 * rate)
    (slope,) = torch.autograd.grad(cost, after)
    assert slope.abs().max() < 1e-12
