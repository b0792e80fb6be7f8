"""Engines can be differentiated twice: a level above may learn through gradients that went through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nldsl.codegen.engines.attention import attention
from nldsl.codegen.engines.channels import channel_delta, channel_frozen, channel_hebbian
from nldsl.codegen.engines.deep_dgd import deep_dgd
from nldsl.codegen.engines.delta import delta, delta_frozen
from nldsl.codegen.engines.frozen import frozen
from nldsl.codegen.engines.hebbian import hebbian
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import inputs, rand

TOKENS, WIDTH = 3, 2
ENGINES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "hebbian": (hebbian, {"tile": 2}),
    "delta, retained": (delta, {"tile": 2}),
    "delta, current": (delta, {"erase": "current", "tile": 2}),
    "delta, frozen": (delta_frozen, {"period": 2, "read": "after"}),
    "frozen": (frozen, {"period": 2}),
    "frozen, deep": (frozen, {"period": 2, "map": "mlp"}),
    "deep delta": (deep_dgd, {"period": 2, "read": "after"}),
    "hebbian by channel": (channel_hebbian, {"tile": 2}),
    "delta by channel": (channel_delta, {"tile": 2}),
    "delta by channel, apart": (channel_delta, {"tile": 2, "anchor": "current"}),
    "frozen by channel": (channel_frozen, {"period": 2}),
}

MODES: list[Any] = ["first_order", "stop", ("through", 2)]


def _leaves(engine: Callable[..., Any], words: dict[str, Any]) -> dict[str, Tensor]:
    """Inputs with gates between their ends: there the second derivative is taken by differences."""
    tensors = inputs(1, 1, TOKENS, WIDTH, WIDTH, seed=3, momentum=engine is frozen)
    gates = [n for n in ("rate", "retain", "momentum") if n in tensors]
    tensors |= {n: rand(1, 1, TOKENS, seed=5 + i, low=0.2, high=0.9) for i, n in enumerate(gates)}
    if engine in (channel_hebbian, channel_delta, channel_frozen):
        tensors["retain"] = rand(1, 1, TOKENS, WIDTH, seed=10, low=0.2, high=0.9)
    if "anchor" in words:
        tensors |= {n: rand(1, 1, TOKENS, WIDTH, seed=11 + i) for i, n in enumerate(("along", "into"))}
    if engine is deep_dgd or "map" in words:
        return tensors | {"W1": rand(1, 3, WIDTH, seed=8), "W2": rand(1, WIDTH, 3, seed=9)}
    return tensors | {"start": rand(1, WIDTH, WIDTH, seed=8)}


def _erasing(engine: Callable[..., Any]) -> Callable[..., Any]:
    """`engine` with `along` and `into` as inputs of their own."""

    def called(along: Tensor | None = None, into: Tensor | None = None, **given: Any) -> Any:
        return engine(**given) if along is None else engine(**given, erase=(along, into))

    return called


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_differentiable_twice(name: str) -> None:
    engine, words = ENGINES[name]
    leaves = _leaves(engine, words)
    names = list(leaves)

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        if "W1" in given:
            given["start"] = (given.pop("W1"), given.pop("W2"))  # type: ignore[assignment]
        return _erasing(engine)(**given, **words)[0]

    assert torch.autograd.gradgradcheck(run, list(leaves.values()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", [n for n in ENGINES if "deep" not in n])
def test_second_derivatives_in_a_mode_are_the_token_loops(name: str, mode: Any) -> None:
    engine, words = ENGINES[name]
    leaves = _leaves(engine, words)
    slow: dict[str, Any] = {
        "hebbian": {"objective": "dot"},
        "delta, retained": {},
        "delta, current": {"anchor": "current"},
        "delta, frozen": {"rule": "dgd", "anchor": 2},
        "frozen": {"anchor": 2},
        "hebbian by channel": {"objective": "dot"},
        "delta by channel": {},
        "delta by channel, apart": {"anchor": "current"},
        "frozen by channel": {"anchor": 2},
    }[name]
    found = _second(_erasing(engine)(**leaves, **words, gradient=mode)[0], leaves)
    wanted = _second(_erasing(token_loop)(**leaves, **slow, gradient=mode)[0], leaves)
    for leaf, one, other in zip(leaves, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9, msg=leaf)


def _second(read: Tensor, leaves: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The gradient of the squared length of the gradient of a number made of `read`."""
    several: Any = {"allow_unused": True, "materialize_grads": True}
    given = list(leaves.values())
    first = torch.autograd.grad(read.sin().sum(), given, create_graph=True, **several)
    total = torch.stack([g.square().sum() for g in first]).sum()
    return torch.autograd.grad(total, given, **several)


def test_attention_is_differentiable_twice_where_torch_writes_the_softmax_out() -> None:
    query, key, value = (rand(1, 2, 4, 3, seed=n) for n in range(3))
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda *x: attention(*x)[0], (query, key, value))
