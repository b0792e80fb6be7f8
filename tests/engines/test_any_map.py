"""Any map with standing gradients, and constraints, against the token loop."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nldsl.codegen.engines.any_map import any_map
from nldsl.codegen.engines.layered import layered
from nldsl.codegen.engines.maps import fast_linear, weight_shapes
from nldsl.codegen.engines.orthogonal import orthogonal
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.several import several
from tests.engines.compare import Core, assert_same, inputs, piecewise, rand

torch.set_num_threads(1)
FEW = settings(max_examples=15, deadline=None)
DEEP = {"kind": "mlp", "hidden": 4, "depth": 3, "norm": True, "residual": True, "activation": "silu"}
FLAT = {"kind": "mlp", "depth": 1, "norm": True, "residual": True}
MAPS: tuple[Any, ...] = (
    "matrix",
    "vector",
    {"kind": "mlp", "hidden": 4, "residual": True},
    DEEP,
    FLAT,
    {"kind": "swiglu", "hidden": 4},
)
OBJECTIVES: tuple[Any, ...] = ("l2", "dot", ("lp", 3.0), ("huber", 0.5))
MODES = ("through", "first_order", "stop", ("through", 4), ("through", 3))

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


def _starts(spec: Any, shape: dict[str, Any], scale: float = 0.4) -> dict[str, Tensor]:
    made = weight_shapes(spec, shape["dim_k"], shape["dim_k"])
    return {
        n: (scale * rand(shape["heads"], *size, seed=shape["seed"] + 60 + i)).detach().requires_grad_()
        for i, (n, size) in enumerate(made.items())
    }


def _agree(
    shape: dict[str, Any], spec: Any, cuts: list[int], tile: int | None, moving: bool, **words: Any
) -> None:
    tensors = inputs(**shape, dim_v=shape["dim_k"], momentum=moving)
    tensors["rate"] = (0.2 * tensors["rate"]).detach().requires_grad_()  # cubes grow fast
    # `lq` divides by a power of the norm: near zero it leaves the numbers.
    start = _starts(spec, shape, 2.0 if "constrain" in words else 0.4)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    slow = token_loop(**tensors, start=start, map=spec, **words)
    for engine in (layered, any_map):
        fast = piecewise(engine, tensors, cuts, start=start, map=spec, tile=tile, **words)
        assert_same(fast, slow, tensors | start, tolerance=1e-8)


@FEW
@given(
    shapes,
    st.sampled_from(MAPS),
    st.sampled_from(OBJECTIVES),
    st.integers(1, 6),
    st.sampled_from(["after", "before", "boundary"]),
    st.sampled_from(MODES),
    st.booleans(),
    cutting,
    st.sampled_from([None, 1, 2, 3]),
)
def test_any_map_is_the_token_loop(
    shape: dict[str, Any],
    spec: Any,
    objective: Any,
    anchor: int,
    read: str,
    gradient: Any,
    moving: bool,
    cuts: list[int],
    tile: int | None,
) -> None:
    _agree(shape, spec, cuts, tile, moving, anchor=anchor, read=read, objective=objective, gradient=gradient)


@FEW
@given(
    shapes,
    st.sampled_from(MAPS),
    st.sampled_from([(2, 2), (4, 4), (4, 2), (2, 4), (3, 2), (5, 5)]),
    st.sampled_from(MODES),
    st.booleans(),
    cutting,
)
def test_reads_at_the_boundary_are_the_token_loops(
    shape: dict[str, Any],
    spec: Any,
    clocks: tuple[int, int],
    gradient: Any,
    moving: bool,
    cuts: list[int],
) -> None:
    update, anchor = clocks
    _agree(shape, spec, cuts, None, moving, update=update, anchor=anchor, gradient=gradient)


@FEW
@given(
    shapes,
    st.sampled_from(MAPS[2:]),
    st.sampled_from(["lq", "softmax", "norm"]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([(1, "retained"), (1, "current"), (1, 4), (4, 4), (4, 2), (2, 4)]),
    st.sampled_from(["after", "before", "boundary"]),
    st.sampled_from(MODES),
    st.booleans(),
    cutting,
)
def test_constraints_are_the_token_loops(
    shape: dict[str, Any],
    spec: Any,
    name: str,
    every: int,
    clocks: tuple[int, Any],
    read: str,
    gradient: Any,
    moving: bool,
    cuts: list[int],
) -> None:
    update, anchor = clocks
    if name == "norm" and isinstance(anchor, str):
        anchor = every
    read = "boundary" if update > 1 else read
    constrain = ((name, 4.0 if name == "lq" else None, every),)
    _agree(
        shape,
        spec,
        cuts,
        None,
        moving,
        update=update,
        anchor=anchor,
        read=read,
        gradient=gradient,
        constrain=constrain,
    )


def _two_branches(weights: dict[str, Tensor], z: Tensor) -> Tensor:
    """A gate of one branch on the other, in the middle of a residual sum."""
    normed = F.rms_norm(z, z.shape[-1:], eps=1e-6) * weights["W_gain"]
    left = torch.tanh(fast_linear(normed, weights["W_left"]))
    right = torch.sigmoid(fast_linear(z, weights["W_right"]) + weights["W_bias"])
    return z + fast_linear(left * right, weights["W_out"])


def _block(dim: int) -> dict[str, Any]:
    sizes = {"W_gain": (dim,), "W_left": (3, dim), "W_right": (3, dim), "W_bias": (3,), "W_out": (dim, 3)}
    return {"kind": "block", "function": _two_branches, "shapes": sizes}


@FEW
@given(
    shapes,
    st.sampled_from([{"anchor": 3}, {"update": 4, "anchor": 4}, {"anchor": 2, "read": "before"}]),
    st.sampled_from(MODES),
    st.booleans(),
    cutting,
)
def test_a_function_of_a_users_own_is_the_token_loops(
    shape: dict[str, Any], clocks: dict[str, Any], gradient: Any, moving: bool, cuts: list[int]
) -> None:
    _agree(shape, _block(shape["dim_k"]), cuts, None, moving, gradient=gradient, **clocks)


def test_state_of_the_token_loop_and_back() -> None:
    shape: dict[str, Any] = {"batch": 1, "heads": 2, "tokens": 9, "dim_k": 3, "seed": 4}
    tensors, start = inputs(**shape, dim_v=3, momentum=True), _starts(DEEP, shape)
    words: dict[str, Any] = {"map": DEEP, "anchor": 4, "constrain": (("lq", 4.0, 4),)}
    whole = token_loop(**tensors, start=start, **words)
    for first, second in itertools.permutations((layered, any_map, token_loop), 2):
        before = {n: x[:, :, :5] for n, x in tensors.items()}
        after = {n: x[:, :, 5:] for n, x in tensors.items()}
        head, state = first(**before, start=start, **words)
        tail, state = second(**after, state=state, **words)
        assert_same((torch.cat((head, tail), 2), state), whole, tensors | start)


@pytest.mark.parametrize("engine", [layered, any_map])
@pytest.mark.parametrize("words", [{"anchor": "current"}, {"anchor": 4, "rule": "dgd"}, {}])
def test_running_gradients_are_refused(engine: Core, words: dict[str, Any]) -> None:
    tensors = inputs(1, 1, 3, 2, 2, seed=0)
    with pytest.raises(ValueError, match="stand still"):
        engine(**tensors, **words)


def test_an_objective_that_looks_at_weights_is_the_token_loops() -> None:
    tensors, start = inputs(1, 2, 7, 3, 3, seed=5), {"W": rand(2, 3, 3, seed=6)}
    words: dict[str, Any] = {"start": start, "objective": "oja", "anchor": 3}
    assert_same(any_map(**tensors, **words), token_loop(**tensors, **words), tensors | start)


@FEW
@given(shapes, st.sampled_from(MODES), st.sampled_from([None, 3]), st.booleans(), cutting)
def test_a_threshold_for_each_token_is_the_token_loops(
    shape: dict[str, Any], gradient: Any, window: int | None, moving: bool, cuts: list[int]
) -> None:
    tensors = inputs(**shape, dim_v=shape["dim_k"], momentum=moving)
    size = (shape["batch"], shape["heads"], shape["tokens"])
    tensors["objective_parameter"] = rand(*size, seed=shape["seed"] + 90, low=0.1, high=1.5)
    start = _starts(FLAT, shape)
    words: dict[str, Any] = {"start": start, "map": FLAT, "anchor": 4, "objective": "huber"}
    words |= {"gradient": gradient, "window": window}
    slow = token_loop(**tensors, **words)
    fast = piecewise(layered, tensors, [min(cut, shape["tokens"]) for cut in cuts], **words)
    assert_same(fast, slow, tensors | start, tolerance=1e-8)


def _leaning(read: Any, key: Tensor, value: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    return (weight * (read(key) - value + shift).cosh().log()).sum(-1)


def _apart(read: Any, key: Tensor, value: Tensor, weight: Tensor, other: Tensor) -> Tensor:
    answer = read(key)
    return (0.5 * (answer - value).square() - weight * (answer - read(other)).tanh().square()).sum(-1)


@settings(FEW, max_examples=40)
@given(
    shapes,
    st.sampled_from(MAPS),
    st.sampled_from([(_leaning, (layered, any_map)), (_apart, (any_map,))]),
    st.sampled_from(MODES),
    st.sampled_from([None, 3]),
    st.sampled_from(["after", "before", "boundary"]),
    st.booleans(),
    cutting,
    st.sampled_from([None, 1, 3]),
)
def test_what_an_objective_reads_for_each_token_is_the_token_loops(
    shape: dict[str, Any],
    spec: Any,
    objective: Any,
    gradient: Any,
    window: int | None,
    read: str,
    moving: bool,
    cuts: list[int],
    tile: int | None,
) -> None:
    tensors = inputs(**shape, dim_v=shape["dim_k"], momentum=moving)
    size = (shape["batch"], shape["heads"], shape["tokens"])
    given_1 = rand(*size, 1, seed=shape["seed"] + 90, low=0.0, high=1.5)
    given_2 = rand(*size, shape["dim_k"], seed=shape["seed"] + 91)
    start = _starts(spec, shape)
    words: dict[str, Any] = {"start": start, "map": spec, "anchor": 4, "objective": objective[0]}
    words |= {"gradient": gradient, "window": window, "read": read}
    leaves = tensors | start | {"given_1": given_1, "given_2": given_2}
    slow = token_loop(**tensors, objective_parameter=(given_1, given_2), **words)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    both = tensors | {"given_1": given_1, "given_2": given_2}
    for engine in objective[1]:
        fast = piecewise(_handed(engine), both, cuts, tile=tile, **words)
        assert_same(fast, slow, leaves, tolerance=1e-8)


def _handed(engine: Core) -> Core:
    def run(*, given_1: Tensor, given_2: Tensor, **words: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return engine(**words, objective_parameter=(given_1, given_2))

    return run


@FEW
@given(shapes, st.sampled_from(["huber", _leaning]), st.sampled_from(MODES))
def test_orthogonalised_steps_take_what_an_objective_reads(
    shape: dict[str, Any], objective: Any, gradient: Any
) -> None:
    tensors = inputs(**shape, dim_v=shape["dim_k"], momentum=True)
    size = (shape["batch"], shape["heads"], shape["tokens"])
    bound = rand(*size, seed=shape["seed"] + 90, low=0.3, high=1.5)
    shift = rand(*size, shape["dim_k"], seed=shape["seed"] + 91)
    start = _starts("matrix", shape)
    words: dict[str, Any] = {"start": start, "anchor": 4, "objective": objective, "gradient": gradient}
    given_ = bound if objective == "huber" else (bound[..., None], shift)
    slow = token_loop(**tensors, objective_parameter=given_, rule="muon", **words)
    fast = orthogonal(**tensors, objective_parameter=given_, **words)
    assert_same(fast, slow, tensors | start | {"bound": bound, "shift": shift}, tolerance=1e-7)


def test_an_objective_of_several_writes_reads_the_same_for_each() -> None:
    tensors = inputs(1, 2, 12, 3, 3, seed=5)
    for name in ("query", "retain"):
        tensors[name] = tensors[name][:, :, :6].detach().requires_grad_()
    bound = rand(1, 2, 6, seed=6, low=0.1, high=1.0)
    words: dict[str, Any] = {"objective": "huber", "writes": 2}
    whole = several(token_loop, **tensors, objective_parameter=bound, **words)
    longer = bound.repeat_interleave(2, dim=2)
    retain = torch.stack((tensors["retain"], torch.ones(1, 2, 6)), -1).flatten(2)
    query = tensors["query"].repeat_interleave(2, dim=2)
    words = tensors | {"query": query, "retain": retain, "objective": "huber", "objective_parameter": longer}
    token_by_token = token_loop(**words)
    assert torch.allclose(whole[0], token_by_token[0][:, :, 1::2])


def test_weights_that_no_answer_needs_stay_as_they_are() -> None:
    def one_of_two(weights: dict[str, Tensor], z: Tensor) -> Tensor:
        return fast_linear(z, weights["W_used"])

    tensors = inputs(1, 1, 5, 3, 3, seed=2)
    start = {
        n: rand(1, *size, seed=i) for i, (n, size) in enumerate({"W_used": (3, 3), "W_idle": (2, 3)}.items())
    }
    spec = {"kind": "block", "function": one_of_two, "shapes": {n: w.shape[1:] for n, w in start.items()}}
    words: dict[str, Any] = {"start": start, "map": spec, "anchor": 2}
    assert_same(layered(**tensors, **words), token_loop(**tensors, **words), tensors | start)


def test_a_matrix_used_twice_is_refused_where_layers_are_factored() -> None:
    def twice(weights: dict[str, Tensor], z: Tensor) -> Tensor:
        return fast_linear(torch.tanh(fast_linear(z, weights["W"])), weights["W"])

    tensors, start = inputs(1, 1, 5, 3, 3, seed=2), {"W": rand(1, 3, 3, seed=3)}
    spec = {"kind": "block", "function": twice, "shapes": {"W": (3, 3)}}
    words: dict[str, Any] = {"start": start, "map": spec, "anchor": 2}
    assert_same(any_map(**tensors, **words), token_loop(**tensors, **words), tensors | start)
    with pytest.raises(ValueError, match="used twice"):
        layered(**tensors, **words)


@pytest.mark.parametrize("engine", [layered, any_map])
def test_gradients_of_gradients(engine: Core) -> None:
    shape: dict[str, Any] = {"batch": 1, "heads": 1, "tokens": 4, "dim_k": 2, "seed": 8}
    tensors, start = inputs(**shape, dim_v=2), _starts(FLAT, shape)
    leaves = [*tensors.values(), *start.values()]

    def read(*given_: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(tensors, given_, strict=False))
        weights = dict(zip(start, given_[len(tensors) :], strict=True))
        return engine(**named, start=weights, map=FLAT, anchor=2)[0]

    leaves = [x.detach().clamp(0.1, 0.9).requires_grad_() if x.dim() == 3 else x for x in leaves]
    assert torch.autograd.gradgradcheck(read, leaves, atol=1e-6)
