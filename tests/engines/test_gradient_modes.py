"""How the outer gradient flows through the engines: every mode against the token loop, in float64."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.attention import attention
from nldsl.codegen.engines.channels import channel_delta, channel_frozen, channel_hebbian
from nldsl.codegen.engines.delta import delta, delta_frozen
from nldsl.codegen.engines.frozen import frozen
from nldsl.codegen.engines.hebbian import hebbian
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.tiles import marked_tiling
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=30, deadline=None)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 2),
        "tokens": st.integers(0, 13),
        "dim_k": st.integers(1, 3),
        "seed": st.integers(0, 10_000),
    }
)
modes = st.one_of(
    st.sampled_from(["through", "first_order", "stop"]), st.tuples(st.just("through"), st.integers(1, 9))
)
reads = st.sampled_from(["after", "before", "boundary"])
cutting = st.lists(st.integers(0, 13), max_size=3)
tile_sizes = st.integers(1, 6)
periods = st.integers(2, 6)
by_channel = st.sets(st.sampled_from(["rate", "retain"])).map(sorted)


def _case(shape: dict[str, Any], dim_v: int = 2, **options: Any) -> tuple[dict[str, Any], torch.Tensor]:
    tensors = inputs(**shape, dim_v=dim_v, **options)
    return tensors, rand(shape["heads"], dim_v, shape["dim_k"], seed=shape["seed"] + 9)


def _by_channel(tensors: dict[str, Any], names: list[str], seed: int) -> dict[str, Any]:
    """The same with a number for each channel in these gates, 0 and 1 among them."""
    shape = tuple(tensors["key"].shape)
    wide = {n: rand(*shape, seed=seed + len(n), low=-0.2, high=1.2) for n in names}
    return tensors | {n: gate.detach().clamp(0.0, 1.0).requires_grad_() for n, gate in wide.items()}


def _cuts(cuts: list[int], shape: dict[str, Any]) -> list[int]:
    return [min(cut, shape["tokens"]) for cut in cuts]


@FEW
@given(shapes, modes, st.sampled_from(["after", "before"]), tile_sizes, cutting)
def test_hebbian(shape: dict[str, Any], mode: Any, read: str, tile: int, cuts: list[int]) -> None:
    tensors, start = _case(shape)
    words: dict[str, Any] = {"start": start, "read": read, "gradient": mode}
    fast = piecewise(hebbian, tensors, _cuts(cuts, shape), tile=tile, **words)
    assert_same(fast, token_loop(**tensors, objective="dot", **words), tensors | {"start": start})


@FEW
@given(shapes, modes, st.integers(1, 5), tile_sizes, cutting)
def test_hebbian_with_a_divisor(
    shape: dict[str, Any], mode: Any, period: int, tile: int, cuts: list[int]
) -> None:
    tensors, start = _case(shape)
    for name in ("query", "key", "rate"):  # keeps the divisor away from zero
        tensors[name] = tensors[name].detach().abs().add(0.2).requires_grad_()
    words: dict[str, Any] = {"start": start, "normalise": True, "gradient": mode}
    read = "after" if period == 1 else "boundary"
    fast = piecewise(hebbian, tensors, _cuts(cuts, shape), read=read, period=period, tile=tile, **words)
    slow = token_loop(**tensors, objective="dot", update=period, anchor=max(period, 1), **words)
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(shapes, modes, st.sampled_from(["retained", "current"]), reads, tile_sizes, cutting)
def test_delta(shape: dict[str, Any], mode: Any, erase: str, read: str, tile: int, cuts: list[int]) -> None:
    read = "before" if read == "boundary" else read
    tensors, start = _case(shape, key_scale=1.3)
    words: dict[str, Any] = {"start": start, "read": read, "gradient": mode}
    fast = piecewise(delta, tensors, _cuts(cuts, shape), erase=erase, tile=tile, **words)
    assert_same(fast, token_loop(**tensors, anchor=erase, **words), tensors | {"start": start})


@FEW
@given(shapes, st.one_of(st.just("stop"), st.tuples(st.just("through"), st.integers(1, 9))), tile_sizes)
def test_delta_descent_on_the_dot_product(shape: dict[str, Any], mode: Any, tile: int) -> None:
    tensors, start = _case(shape)
    fast = delta(**tensors, start=start, erase="current", gradient=mode, tile=tile)
    slow = token_loop(**tensors, start=start, rule="dgd", objective="dot", gradient=mode)
    assert_same(fast, slow, tensors | {"start": start})


def test_delta_descent_on_the_dot_product_has_no_weights_in_its_gradient() -> None:
    tensors, start = _case({"batch": 1, "heads": 2, "tokens": 9, "dim_k": 3, "seed": 3})
    words: dict[str, Any] = {"start": start, "rule": "dgd", "objective": "dot"}
    first = token_loop(**tensors, gradient="first_order", **words)
    assert_same(first, token_loop(**tensors, **words), tensors | {"start": start})


@FEW
@given(shapes, modes, periods, reads, st.sampled_from(["l2", "dot"]), tile_sizes, cutting)
def test_frozen_delta_descent(
    shape: dict[str, Any], mode: Any, period: int, read: str, objective: str, tile: int, cuts: list[int]
) -> None:
    tensors, start = _case(shape)
    words: dict[str, Any] = {"start": start, "objective": objective, "read": read, "gradient": mode}
    fast = piecewise(delta_frozen, tensors, _cuts(cuts, shape), period=period, tile=tile, **words)
    slow = token_loop(**tensors, rule="dgd", anchor=period, **words)
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(shapes, modes, by_channel, reads, st.integers(1, 5), st.booleans(), tile_sizes, cutting)
def test_hebbian_by_channel(
    shape: dict[str, Any],
    mode: Any,
    names: list[str],
    read: str,
    period: int,
    normalise: bool,
    tile: int,
    cuts: list[int],
) -> None:
    tensors, start = _case(shape)
    tensors = _by_channel(tensors, names, shape["seed"])
    if normalise:  # keeps the divisor away from zero
        for name in ("query", "key", "rate", "retain"):
            tensors[name] = tensors[name].detach().abs().add(0.2).clamp(max=1.0).requires_grad_()
    read = "after" if read == "boundary" and period == 1 else read
    words: dict[str, Any] = {"start": start, "normalise": normalise, "gradient": mode, "read": read}
    fast = piecewise(channel_hebbian, tensors, _cuts(cuts, shape), period=period, tile=tile, **words)
    update = period if read == "boundary" else 1
    anchor = period if period > 1 else "retained"
    slow = token_loop(**tensors, objective="dot", update=update, anchor=anchor, **words)
    assert_same(fast, slow, tensors | {"start": start})


@settings(FEW, max_examples=60)
@given(
    shapes,
    modes,
    by_channel,
    st.sampled_from(["after", "before"]),
    st.sampled_from(["retained", "current"]),
    st.sampled_from([(), ("along",), ("along", "into")]),
    tile_sizes,
    cutting,
)
def test_delta_by_channel(
    shape: dict[str, Any],
    mode: Any,
    names: list[str],
    read: str,
    anchor: str,
    erasure: tuple[str, ...],
    tile: int,
    cuts: list[int],
) -> None:
    tensors, start = _case(shape, key_scale=1.3)
    tensors = _by_channel(tensors, names, shape["seed"])
    for n, name in enumerate(erasure):
        tensors[name] = rand(*tensors["key"].shape, seed=shape["seed"] + 60 + n)

    def erasing(core: Any) -> Any:
        def called(along: Any = None, into: Any = None, **given: Any) -> Any:
            return core(**given, erase=along if into is None else (along, into))

        return called

    words: dict[str, Any] = {"start": start, "read": read, "gradient": mode, "anchor": anchor}
    fast = piecewise(erasing(channel_delta), tensors, _cuts(cuts, shape), tile=tile, **words)
    assert_same(fast, erasing(token_loop)(**tensors, **words), tensors | {"start": start})


@settings(FEW, max_examples=60)
@given(shapes, modes, by_channel, periods, reads, st.booleans(), tile_sizes, cutting)
def test_frozen_by_channel(
    shape: dict[str, Any],
    mode: Any,
    names: list[str],
    period: int,
    read: str,
    whole: bool,
    tile: int,
    cuts: list[int],
) -> None:
    tensors, start = _case(shape, key_scale=1.3)
    tensors = _by_channel(tensors, names, shape["seed"])
    update = period if whole else 1
    read = "boundary" if whole else read
    words: dict[str, Any] = {"start": start, "read": read, "gradient": mode}
    fast = piecewise(channel_frozen, tensors, _cuts(cuts, shape), period=period, tile=tile, **words)
    slow = token_loop(**tensors, anchor=period, update=update, **words)
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(shapes, modes, periods, reads, st.sampled_from(["l2", "dot"]), st.booleans(), tile_sizes, cutting)
def test_frozen_matrix(
    shape: dict[str, Any],
    mode: Any,
    period: int,
    read: str,
    objective: str,
    moving: bool,
    tile: int,
    cuts: list[int],
) -> None:
    tensors, start = _case(shape, momentum=moving)
    words: dict[str, Any] = {"start": start, "objective": objective, "read": read, "gradient": mode}
    fast = piecewise(frozen, tensors, _cuts(cuts, shape), period=period, tile=tile, **words)
    assert_same(fast, token_loop(**tensors, anchor=period, **words), tensors | {"start": start})


@FEW
@given(shapes, modes, periods, reads, st.booleans(), tile_sizes, cutting)
def test_frozen_mlp(
    shape: dict[str, Any], mode: Any, period: int, read: str, moving: bool, tile: int, cuts: list[int]
) -> None:
    width, heads = shape["dim_k"], shape["heads"]
    tensors, _ = _case(shape, dim_v=width, momentum=moving)
    start = tuple(
        (0.5 * rand(heads, *size, seed=shape["seed"] + 50 + n)).detach().requires_grad_()
        for n, size in enumerate(((5, width), (width, 5)))
    )
    words: dict[str, Any] = {"start": start, "read": read, "gradient": mode}
    fast = piecewise(frozen, tensors, _cuts(cuts, shape), map="mlp", period=period, tile=tile, **words)
    spec = {"kind": "mlp", "hidden": 5, "residual": True}
    slow = token_loop(**tensors, map=spec, anchor=period, **words)
    assert_same(fast, slow, tensors | {f"W{n}": w for n, w in enumerate(start)})


@FEW
@given(shapes, modes, st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 2), st.booleans(), cutting)
def test_attention(
    shape: dict[str, Any], mode: Any, window: int | None, sinks: int, grouped: bool, cuts: list[int]
) -> None:
    tensors = {n: t for n, t in _case(shape)[0].items() if n in ("query", "key", "value")}
    if grouped:
        size = (shape["batch"], 2 * shape["heads"], shape["tokens"], shape["dim_k"])
        tensors["query"] = rand(*size, seed=shape["seed"])
    words: dict[str, Any] = {"gradient": mode}
    fast = piecewise(attention, tensors, _cuts(cuts, shape), window=window, sinks=sinks, **words)
    spec = {"kind": "cache", "window": window, "sinks": sinks}
    slow = token_loop(**tensors, map=spec, rule="softmax", **words)
    if mode == "stop" and shape["tokens"] == 0:  # nothing is left that a gradient could reach
        return
    assert_same(fast, slow, tensors)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 8), st.integers(0, 8), st.integers(0, 80))
def test_tiles_lie_inside_a_period_and_between_cuts(
    tokens: int, tile: int, period: int, cut_every: int, phase: int
) -> None:
    (front, back, size), opens, ends = marked_tiling(tokens, tile, period, cut_every, phase)
    assert (front + tokens + back) == size * len(opens)
    edges = [phase + min(max(0, n * size - front), tokens) for n in range(len(opens) + 1)]
    inner = set(range(phase, phase + tokens))
    assert {e for e, o in zip(edges, opens, strict=False) if o} == {
        t for t in inner if period and t % period == 0
    }
    assert {e for e, o in zip(edges[1:], ends, strict=True) if o} == {
        t + 1 for t in inner if cut_every and (t + 1) % cut_every == 0
    }
