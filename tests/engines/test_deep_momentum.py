"""Delta gradient descent on deep maps, with momentum and every gradient mode, against the token loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.deep_dgd import deep_dgd, deep_dgd_fold
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.reference_fold import token_fold
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=25, deadline=None)
RULES = {"per_layer": "dgd", "first_layer": "dgd_first_layer", "explicit": "dgd_explicit"}

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 9),
        "dim_k": st.integers(1, 3),
        "seed": st.integers(0, 10_000),
        "key_scale": st.sampled_from([1.0, 1.7]),
    }
)


def _layers(width: int, depth: int, dim_v: int, seed: int, *lead: int) -> tuple[torch.Tensor, ...]:
    widths = [width, *[4] * (depth - 1), dim_v]
    return tuple(
        (0.5 * rand(*lead, widths[n + 1], widths[n], seed=seed + 50 + n)).detach().requires_grad_()
        for n in range(depth)
    )


@FEW
@given(
    shapes,
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["after", "before", "boundary"]),
    st.sampled_from(["l2", "dot"]),
    st.sampled_from(sorted(RULES)),
    st.sampled_from(["through", "first_order", "stop", ("through", 1), ("through", 4)]),
    st.booleans(),
    st.lists(st.integers(0, 9), max_size=3),
)
def test_deep_delta_descent_with_momentum_is_the_token_loop(
    shape: dict[str, Any],
    depth: int,
    period: int,
    tile: int,
    read: str,
    objective: str,
    reading: str,
    gradient: Any,
    moving: bool,
    cuts: list[int],
) -> None:
    residual = bool(shape["seed"] % 2)
    dim_v = shape["dim_k"] if residual else 2
    tensors = inputs(**shape, dim_v=dim_v, momentum=moving)
    start = _layers(shape["dim_k"], depth, dim_v, shape["seed"], shape["heads"])
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    words: dict[str, Any] = {"start": start, "objective": objective, "gradient": gradient}
    fast = piecewise(
        deep_dgd,
        tensors,
        cuts,
        residual=residual,
        period=period,
        read=read,
        reading=reading,
        tile=tile,
        **words,
    )
    spec = {"kind": "mlp", "hidden": 4, "depth": depth, "residual": residual}
    anchor = "current" if period == 1 else period
    seen = "before" if (read, period) == ("boundary", 1) else read
    slow = token_loop(**tensors, map=spec, rule=RULES[reading], anchor=anchor, read=seen, **words)
    assert_same(fast, slow, tensors | {f"W{n}": w for n, w in enumerate(start)})


@pytest.mark.parametrize("reading", ["per_layer", "first_layer"])
@pytest.mark.parametrize("objective", ["l2", "dot"])
def test_folds_carry_the_momentum_of_stacked_memories(reading: str, objective: str) -> None:
    tensors = inputs(2, 2, 6, 3, 3, seed=21, momentum=True)
    running, anchor = (_layers(3, 2, 3, seed, 3, 2, 2) for seed in (1, 2))
    moments = _layers(3, 2, 3, 3, 3, 2, 2)
    target = rand(3, 2, 2, 6, 3, seed=77)
    gates = (tensors["key"], target, tensors["rate"], tensors["retain"])
    words: dict[str, Any] = {"moments": moments, "momentum": tensors["momentum"], "objective": objective}
    fast = deep_dgd_fold(running, anchor, *gates, reading=reading, **words)
    spec = {"kind": "mlp", "hidden": 4, "residual": True}
    slow = token_fold(running, anchor, *gates, map=spec, rule=RULES[reading], **words)
    results = []
    for weights, moved in (fast, slow):
        assert moved is not None
        named = {f"W{n}": w for n, w in enumerate(weights)} | {f"S{n}": s for n, s in enumerate(moved)}
        results.append((target, named))
    begun = {f"W{n}": w for n, w in enumerate((*running, *anchor, *moments))}
    leaves = {n: x for n, x in tensors.items() if n not in ("query", "value")}
    assert_same(results[0], results[1], leaves | {"target": target} | begun)
