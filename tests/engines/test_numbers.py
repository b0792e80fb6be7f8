"""Numbers that break engines: gates out of range, keys of length 0, short sequences, half precision, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.codegen.engines.deep_dgd import deep_dgd
from nldsl.codegen.engines.delta import delta, delta_frozen
from nldsl.codegen.engines.frozen import frozen
from nldsl.codegen.engines.hebbian import hebbian
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import assert_same, inputs, rand

Engine = Callable[..., Any]
DEEP: dict[str, Any] = {"kind": "mlp", "hidden": 3, "residual": True}

# an engine, its settings, and the same for the token loop
CASES: dict[str, tuple[Engine, dict[str, Any], dict[str, Any]]] = {
    "hebbian": (hebbian, {}, {"objective": "dot"}),
    "delta, retained": (delta, {}, {}),
    "delta, current": (delta, {"erase": "current"}, {"anchor": "current"}),
    "delta, frozen": (delta_frozen, {"period": 3, "read": "after"}, {"rule": "dgd", "anchor": 3}),
    "frozen": (frozen, {"period": 3}, {"anchor": 3}),
    "frozen, deep": (frozen, {"period": 3, "map": "mlp"}, {"anchor": 3, "map": DEEP}),
    "deep delta": (
        deep_dgd,
        {"period": 3, "read": "after"},
        {"anchor": 3, "map": DEEP, "rule": "dgd"},
    ),
}


def _case(name: str, tokens: int, seed: int = 1, width: int = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and start."""
    tensors = inputs(1, 2, tokens, width, width, seed=seed, momentum=CASES[name][0] is frozen)
    if CASES[name][2].get("map") is DEEP:
        sizes = ((3, width), (width, 3))
        start = tuple((0.5 * rand(2, *s, seed=seed + 7)).detach().requires_grad_() for s in sizes)
        return tensors, {"start": start}
    return tensors, {"start": rand(2, width, width, seed=seed + 7)}


def _agree(name: str, tensors: dict[str, Any], start: dict[str, Any], tile: int = 4) -> None:
    engine, words, slow = CASES[name]
    fast = engine(**tensors, **start, **words, tile=tile)
    begun = start["start"]
    leaves = dict(enumerate(begun)) if isinstance(begun, tuple) else {0: begun}
    starts = {f"start {n}": w for n, w in leaves.items()}
    assert_same(fast, token_loop(**tensors, **start, **slow), tensors | starts)


@pytest.mark.parametrize("name", CASES)
def test_gates_outside_their_range_count_as_they_are(name: str) -> None:
    tensors, start = _case(name, 11)
    for n, gate in enumerate(g for g in ("retain", "momentum", "rate") if g in tensors):
        tensors[gate] = rand(1, 2, 11, seed=40 + n, low=-1.2, high=1.4)
    tensors["retain"] = torch.where(torch.rand(1, 2, 11) < 0.2, 0.0, tensors["retain"].detach())
    tensors["retain"].requires_grad_()
    _agree(name, tensors, start)


@pytest.mark.parametrize("name", CASES)
def test_keys_of_length_zero_write_nothing(name: str) -> None:
    tensors, start = _case(name, 9)
    key = tensors["key"].detach().clone()
    key[:, :, 2:6] = 0
    _agree(name, tensors | {"key": key.requires_grad_()}, start)


@pytest.mark.parametrize("tokens", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_sequences_shorter_than_a_period(name: str, tokens: int) -> None:
    _agree(name, *_case(name, tokens))


def test_reads_of_zero_are_not_divided() -> None:
    tensors, start = _case("hebbian", 6)
    tensors["key"] = torch.zeros_like(tensors["key"], requires_grad=True)
    fast = hebbian(**tensors, **start, normalise=True, tile=4)
    assert_same(fast, token_loop(**tensors, **start, normalise=True, objective="dot"), tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_long_products_of_gates_in_half_precision(name: str, dtype: torch.dtype) -> None:
    """Values and gradients are as good as half precision keeps numbers, however many tokens there are."""
    engine, words, _ = CASES[name]
    tokens = 256 if "period" in words else 2048  # a period of 3 tokens takes many tiles
    tensors, start = _case(name, tokens, width=8)
    tensors["retain"] = torch.full((1, 2, tokens), 0.999)
    tensors["rate"] = tensors["rate"] * (0.02 if "deep" in name else 1.0)  # a deep memory leaves the numbers
    given = {n: t.detach().to(dtype).requires_grad_() for n, t in tensors.items()}
    exact = {n: t.detach().double().requires_grad_() for n, t in given.items()}
    begun = _to(start["start"], dtype)
    read, _ = engine(**given, **words, start=begun)
    wanted, _ = engine(**exact, **words, start=_to(begun, torch.float64))
    assert read.dtype == dtype
    tolerance = 64 * torch.finfo(dtype).eps
    assert _error(read, wanted) < tolerance
    found = torch.autograd.grad(read.float().square().mean(), list(given.values()))
    grads = torch.autograd.grad(wanted.square().mean(), list(exact.values()))
    for leaf, one, other in zip(given, found, grads, strict=True):
        assert _error(one, other) < tolerance, leaf


def _to(start: Any, dtype: torch.dtype) -> Any:
    return (
        tuple(w.detach().to(dtype) for w in start) if isinstance(start, tuple) else start.detach().to(dtype)
    )


def _error(one: Tensor, other: Tensor) -> float:
    """Relative, over all entries."""
    return ((one.double() - other).norm() / other.norm().clamp(min=1e-12)).item()
