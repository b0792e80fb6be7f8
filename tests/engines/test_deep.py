"""The engines for frozen gradients and deep maps against the token loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.deep_dgd import deep_dgd, deep_dgd_fold
from nldsl.codegen.engines.frozen import frozen, frozen_fold
from nldsl.codegen.engines.layers import activation_slope
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=20, deadline=None)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 11),
        "dim_k": st.integers(1, 4),
        "seed": st.integers(0, 10_000),
    }
)
reads = st.sampled_from(["after", "before", "boundary"])
activations = st.sampled_from(["gelu", "silu", "relu", "tanh"])
cutting = st.lists(st.integers(0, 11), max_size=3)


def _layers(
    shape: dict[str, Any], depth: int, dim_v: int, *, lead: tuple[int, ...] = ()
) -> tuple[torch.Tensor, ...]:
    widths = [shape["dim_k"], *[5] * (depth - 1), dim_v]
    lead = lead or (shape["heads"],)
    return tuple(
        (0.5 * rand(*lead, widths[n + 1], widths[n], seed=shape["seed"] + 50 + n)).detach().requires_grad_()
        for n in range(depth)
    )


def _anchor(period: int) -> str | int:
    return "current" if period == 1 else period


def _reference_read(read: str, period: int) -> str:
    """A period of one token starts at the weights before the token's write."""
    return "before" if read == "boundary" and period == 1 else read


@FEW
@given(shapes, st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), reads, st.booleans(), cutting)
def test_frozen_matrix_is_the_token_loop(
    shape: dict[str, Any], dim_v: int, period: int, tile: int, read: str, moving: bool, cuts: list[int]
) -> None:
    tensors = inputs(**shape, dim_v=dim_v, momentum=moving)
    start = rand(shape["heads"], dim_v, shape["dim_k"], seed=shape["seed"] + 9)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    fast = piecewise(frozen, tensors, cuts, start=start, period=period, read=read, tile=tile)
    slow = token_loop(**tensors, start=start, anchor=_anchor(period), read=_reference_read(read, period))
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(
    shapes,
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 4),
    reads,
    activations,
    st.sampled_from(["l2", "dot"]),
    st.booleans(),
    cutting,
)
def test_frozen_mlp_is_the_token_loop(
    shape: dict[str, Any],
    depth: int,
    period: int,
    tile: int,
    read: str,
    activation: str,
    objective: str,
    moving: bool,
    cuts: list[int],
) -> None:
    residual = bool(shape["seed"] % 2)
    dim_v = shape["dim_k"] if residual else 3
    tensors = inputs(**shape, dim_v=dim_v, momentum=moving)
    start = _layers(shape, depth, dim_v)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    options: dict[str, Any] = {"start": start, "objective": objective}
    fast = piecewise(
        frozen,
        tensors,
        cuts,
        map="mlp",
        residual=residual,
        activation=activation,
        period=period,
        read=read,
        tile=tile,
        **options,
    )
    spec = {"kind": "mlp", "hidden": 5, "depth": depth, "residual": residual, "activation": activation}
    slow = token_loop(
        **tensors, map=spec, anchor=_anchor(period), read=_reference_read(read, period), **options
    )
    assert_same(fast, slow, tensors | {f"W{n}": w for n, w in enumerate(start)})


@FEW
@given(
    shapes,
    st.integers(1, 3),
    st.integers(1, 6),
    reads,
    activations,
    st.sampled_from(["l2", "dot"]),
    st.sampled_from(["per_layer", "first_layer", "explicit"]),
    cutting,
)
def test_deep_delta_descent_is_the_token_loop(
    shape: dict[str, Any],
    depth: int,
    period: int,
    read: str,
    activation: str,
    objective: str,
    reading: str,
    cuts: list[int],
) -> None:
    residual = bool(shape["seed"] % 2)
    dim_v = shape["dim_k"] if residual else 2
    tensors = inputs(**shape, dim_v=dim_v)
    start = _layers(shape, depth, dim_v)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    options: dict[str, Any] = {"start": start, "objective": objective}
    fast = piecewise(
        deep_dgd,
        tensors,
        cuts,
        residual=residual,
        activation=activation,
        period=period,
        read=read,
        reading=reading,
        tile=3,
        **options,
    )
    spec = {"kind": "mlp", "hidden": 5, "depth": depth, "residual": residual, "activation": activation}
    rule = {"per_layer": "dgd", "first_layer": "dgd_first_layer", "explicit": "dgd_explicit"}[reading]
    slow = token_loop(
        **tensors, map=spec, rule=rule, anchor=_anchor(period), read=_reference_read(read, period), **options
    )
    assert_same(fast, slow, tensors | {f"W{n}": w for n, w in enumerate(start)})


@pytest.mark.parametrize("core", ["frozen", "deep_dgd"])
def test_first_order_is_the_token_loops(core: str) -> None:
    shape: dict[str, Any] = {"batch": 1, "heads": 2, "tokens": 9, "dim_k": 3, "seed": 4}
    tensors, start = inputs(**shape, dim_v=3), _layers(shape, 2, 3)
    spec = {"kind": "mlp", "hidden": 5, "residual": True}
    if core == "frozen":
        fast = frozen(**tensors, start=start, map="mlp", period=4, gradient="first_order")
    else:
        fast = deep_dgd(**tensors, start=start, period=4, read="after", gradient="first_order")
    rule = "gd" if core == "frozen" else "dgd"
    slow = token_loop(**tensors, start=start, map=spec, rule=rule, anchor=4, gradient="first_order")
    assert_same(fast, slow, tensors | {f"W{n}": w for n, w in enumerate(start)})


@pytest.mark.parametrize("rule", ["gd", "dgd"])
@pytest.mark.parametrize("objective", ["l2", "dot"])
def test_folds_serve_stacked_memories_that_share_a_key(rule: str, objective: str) -> None:
    memories, tokens = 3, 6
    shape: dict[str, Any] = {"batch": 2, "heads": 2, "tokens": tokens, "dim_k": 3, "seed": 21}
    tensors = inputs(**shape, dim_v=3)
    running = _layers(shape, 2, 3, lead=(memories, 2, 2))
    target = rand(memories, 2, 2, tokens, 3, seed=77)
    shared = (tensors["key"], target, tensors["rate"], tensors["retain"])
    if rule == "gd":
        folded, _ = frozen_fold(running, running, *shared, objective=objective)
    else:
        folded, _ = deep_dgd_fold(running, running, *shared, objective=objective)
    leaves = tensors | {"target": target} | {f"W{n}": w for n, w in enumerate(running)}
    slow = []
    for m in range(memories):
        alone: dict[str, Any] = dict(tensors) | {"value": target[m]}
        begun = tuple(w[m] for w in running)
        _, state = token_loop(
            **alone,
            start=begun,
            map={"kind": "mlp", "hidden": 5, "residual": True},
            rule=rule,
            objective=objective,
            anchor=tokens + 1,
        )
        slow.append(state)
    names = ("W1", "W2")
    first: dict[str, torch.Tensor] = dict(zip(names, folded, strict=True))
    second = {n: torch.stack([state[n] for state in slow]) for n in names}
    assert_same((target, first), (target, second), leaves)


@pytest.mark.parametrize("name", ["gelu", "silu", "relu", "tanh"])
def test_activation_slopes_are_derivatives(name: str) -> None:
    z = torch.linspace(-3, 3, 14, dtype=torch.float64).requires_grad_()  # 14 points: none at 0
    value, slope = activation_slope(name, z)
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(slope, expected)
