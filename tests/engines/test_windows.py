"""Writes for windows of pairs, and orthogonalised steps, against the token loop."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nldsl.codegen.engines.any_map import any_map
from nldsl.codegen.engines.layered import layered
from nldsl.codegen.engines.long_windows import long_window_delta, sums_of_windows
from nldsl.codegen.engines.maps import weight_shapes
from nldsl.codegen.engines.orthogonal import orthogonal
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.windows import window_delta, window_sums
from tests.engines.compare import assert_same, inputs, piecewise, rand

torch.set_num_threads(1)
FEW = settings(max_examples=20, deadline=None)
MODES = ("through", "first_order", "stop", ("through", 4), ("through", 3))
MAPS: tuple[Any, ...] = (
    "matrix",
    {"kind": "mlp", "hidden": 4, "residual": True},
    {"kind": "mlp", "hidden": 3, "depth": 3, "norm": True, "activation": "silu"},
    {"kind": "swiglu", "hidden": 4},
)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 11),
        "dim_k": st.integers(2, 4),
        "seed": st.integers(0, 10_000),
    }
)
cutting = st.lists(st.integers(0, 11), max_size=3)
reads = st.sampled_from(["after", "before"])


def _case(shape: dict[str, Any], *, weighted: bool, moving: bool = False, dim_v: int) -> dict[str, Tensor]:
    tensors = inputs(**shape, dim_v=dim_v, momentum=moving)
    tensors["rate"] = (0.3 * tensors["rate"]).detach().requires_grad_()  # a window writes several times
    if weighted:
        size = shape["batch"], shape["heads"], shape["tokens"]
        tensors["weight"] = rand(*size, seed=shape["seed"] + 40, low=0.0)
    return tensors


def test_window_sums_hold_the_weights_of_the_pairs_in_each_window() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert window_sums(weight, 2, 2).tolist() == [[0, 2, 3, 0, 0], [0, 0, 3, 4, 0], [0, 0, 0, 4, 5]]
    assert torch.equal(window_sums(weight, 0, 1), weight.diag())


@FEW
@given(
    shapes,
    st.integers(1, 4),
    st.sampled_from(["retained", "current"]),
    reads,
    st.sampled_from(MODES),
    st.booleans(),
    cutting,
    st.sampled_from([1, 2, 3, 16]),
    st.sampled_from([0.0, 9.0]),
)
def test_the_delta_rule_on_a_window_is_the_token_loop(
    shape: dict[str, Any],
    window: int,
    erase: str,
    read: str,
    gradient: Any,
    weighted: bool,
    cuts: list[int],
    tile: int,
    longest: float,
) -> None:
    tensors = _case(shape, weighted=weighted, dim_v=3)
    start = rand(shape["heads"], 3, shape["dim_k"], seed=shape["seed"] + 9)
    words: dict[str, Any] = {"start": start, "window": window, "read": read, "gradient": gradient}
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    fast = piecewise(window_delta, tensors, cuts, erase=erase, tile=tile, longest=longest, **words)
    slow = token_loop(**tensors, anchor=erase, **words)
    state = {n: x for n, x in fast[1].items() if window > 1 or not n.startswith("window_")}
    assert_same((fast[0], state), slow, tensors | {"start": start})


@FEW
@given(
    shapes,
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["retained", "current"]),
    reads,
    st.sampled_from(MODES),
    st.booleans(),
)
def test_a_long_window_is_the_solve_of_its_pairs(
    shape: dict[str, Any], window: int, before: int, erase: str, read: str, gradient: Any, weighted: bool
) -> None:
    tensors = _case(shape | {"tokens": 12}, weighted=weighted, dim_v=3)
    before = min(before, window - 1)
    words: dict[str, Any] = {"window": window, "read": read, "gradient": gradient}
    first = {n: x[:, :, :before] for n, x in tensors.items()}
    rest = {n: x[:, :, before:] for n, x in tensors.items()}
    began = window_delta(**first, erase=erase, longest=9.0, **words)[1]
    slow = window_delta(**rest, erase=erase, state=began, longest=9.0, **words)
    weight = tensors.get("weight", torch.ones_like(tensors["rate"]))
    fast = long_window_delta(
        rest["query"],
        (tensors["key"], tensors["value"], weight),
        rest["rate"],
        rest["retain"],
        began["W"],
        before=before,
        erase=erase,
        phase=int(began.get("phase", 0)),
        **words,
    )
    assert_same((fast[0], {"W": fast[1]}), (slow[0], {"W": slow[1]["W"]}), tensors)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from([4, 12, 1_000_000]),
    st.sampled_from(["retained", "current"]),
    reads,
    st.sampled_from(MODES),
)
def test_windows_longer_than_a_solve_takes_are_the_token_loop(
    window: int, erase: str, read: str, gradient: Any
) -> None:
    shape = {"batch": 1, "heads": 2, "tokens": 22, "dim_k": 3, "seed": 3}
    tensors = _case(shape, weighted=True, dim_v=2)
    tensors["rate"] = (0.1 * tensors["rate"]).detach().requires_grad_()
    start = rand(2, 2, 3, seed=12)
    words: dict[str, Any] = {"start": start, "window": window, "read": read, "gradient": gradient}
    fast = piecewise(window_delta, tensors, [2, 13, 14], erase=erase, **words)
    assert_same(fast, token_loop(**tensors, anchor=erase, **words), tensors | {"start": start})


@given(st.integers(1, 12), st.integers(0, 11), st.integers(1, 14), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_sums_of_windows_are_those_of_the_matrix_of_who_counts(
    places: int, before: int, window: int, seed: int
) -> None:
    before = min(before, places)
    terms = rand(1, 1, places, 2, seed=seed).detach()
    rows = window_sums(torch.ones(places, dtype=terms.dtype), before, window)
    assert torch.allclose(sums_of_windows(terms, before, window), rows @ terms)


def _starts(spec: Any, shape: dict[str, Any]) -> dict[str, Tensor]:
    made = weight_shapes(spec, shape["dim_k"], shape["dim_k"])
    return {
        n: (0.4 * rand(shape["heads"], *size, seed=shape["seed"] + 60 + i)).detach().requires_grad_()
        for i, (n, size) in enumerate(made.items())
    }


@FEW
@given(
    shapes,
    st.sampled_from(MAPS),
    st.integers(1, 4),
    st.sampled_from([(1, 1), (1, 3), (1, 4), (2, 2), (4, 4), (4, 2)]),
    reads,
    st.sampled_from(MODES),
    st.booleans(),
    st.booleans(),
    cutting,
)
def test_standing_gradients_of_a_window_are_the_token_loops(
    shape: dict[str, Any],
    spec: Any,
    window: int,
    clocks: tuple[int, int],
    read: str,
    gradient: Any,
    weighted: bool,
    moving: bool,
    cuts: list[int],
) -> None:
    update, anchor = clocks
    tensors = _case(shape, weighted=weighted, moving=moving, dim_v=shape["dim_k"])
    start = _starts(spec, shape)
    words: dict[str, Any] = {"start": start, "map": spec, "update": update, "gradient": gradient}
    words |= {"window": window, "read": read}
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    slow = token_loop(**tensors, anchor=anchor if anchor > 1 else "current", **words)
    for engine in (layered, any_map):
        fast = piecewise(engine, tensors, cuts, anchor=anchor, tile=3, **words)
        assert_same(fast, slow, tensors | start, tolerance=1e-8)


@FEW
@given(
    shapes,
    st.sampled_from(MAPS),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([(1, 1), (1, 3), (2, 2), (4, 4), (4, 2)]),
    reads,
    st.sampled_from(MODES),
    st.booleans(),
    st.booleans(),
    cutting,
)
def test_orthogonal_steps_are_the_token_loops(
    shape: dict[str, Any],
    spec: Any,
    window: int | None,
    clocks: tuple[int, int],
    read: str,
    gradient: Any,
    weighted: bool,
    moving: bool,
    cuts: list[int],
) -> None:
    update, anchor = clocks
    tensors = _case(shape, weighted=weighted and window is not None, moving=moving, dim_v=shape["dim_k"])
    start = _starts(spec, shape)
    words: dict[str, Any] = {"start": start, "map": spec, "update": update, "gradient": gradient}
    words |= {"window": window, "read": read}
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    fast = piecewise(orthogonal, tensors, cuts, anchor=anchor, tile=3, **words)
    slow = token_loop(**tensors, rule="muon", anchor=anchor if anchor > 1 else "current", **words)
    # A rate of exactly 0 makes S_t = 0 the input of a division by its norm plus 1e-7: gradients are large.
    assert_same(fast, slow, tensors | start, tolerance=1e-6)
