"""The engines for matrix memories against the token loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nldsl.codegen.engines.attention import attention
from nldsl.codegen.engines.delta import delta, delta_fold, delta_frozen
from nldsl.codegen.engines.hebbian import hebbian
from nldsl.codegen.engines.reference import token_loop
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=30, deadline=None)

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.integers(1, 3),
        "tokens": st.integers(0, 13),
        "dim_k": st.integers(1, 4),
        "dim_v": st.integers(1, 4),
        "seed": st.integers(0, 10_000),
    }
)
reads = st.sampled_from(["after", "before"])


def _case(shape: dict[str, Any], **options: Any) -> tuple[dict[str, Any], torch.Tensor]:
    tensors = inputs(**shape, **options)
    return tensors, rand(shape["heads"], shape["dim_v"], shape["dim_k"], seed=shape["seed"] + 9)


@FEW
@given(shapes, reads, st.integers(1, 6), st.booleans())
def test_hebbian_is_the_token_loop(shape: dict[str, Any], read: str, tile: int, normalise: bool) -> None:
    tensors, start = _case(shape)
    if normalise:  # keeps the divisor away from zero
        tensors = {
            n: t.detach().abs().add(0.2).requires_grad_() if n in ("query", "key") else t
            for n, t in tensors.items()
        }
        tensors["retain"] = tensors["retain"].detach().clamp(min=0.3).requires_grad_()
        tensors["rate"] = tensors["rate"].detach().clamp(min=0.2).requires_grad_()
    fast = hebbian(**tensors, start=start, read=read, tile=tile, normalise=normalise)
    slow = token_loop(**tensors, start=start, read=read, objective="dot", normalise=normalise)
    slow[1].pop("phase", None)
    if normalise and shape["tokens"] == 0:
        assert set(fast[1]) == set(slow[1])
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(shapes, st.integers(2, 6), st.integers(1, 6), st.lists(st.integers(0, 13), max_size=3))
def test_hebbian_with_a_period(shape: dict[str, Any], period: int, tile: int, cuts: list[int]) -> None:
    tensors, start = _case(shape)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    fast = piecewise(hebbian, tensors, cuts, start=start, read="boundary", period=period, tile=tile)
    slow = token_loop(**tensors, start=start, update=period, anchor=period, objective="dot")
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(
    shapes, reads, st.sampled_from(["retained", "current"]), st.integers(1, 6), st.sampled_from([1.0, 3.0])
)
def test_delta_is_the_token_loop(
    shape: dict[str, Any], read: str, erase: str, tile: int, key_scale: float
) -> None:
    tensors, start = _case(shape, key_scale=key_scale)
    fast = delta(**tensors, start=start, erase=erase, read=read, tile=tile)
    slow = token_loop(**tensors, start=start, anchor=erase, read=read)
    assert_same(fast, slow, tensors | {"start": start})
    if erase == "current":
        assert_same(fast, token_loop(**tensors, start=start, rule="dgd", objective="dot", read=read), tensors)


@FEW
@given(shapes, st.lists(st.integers(0, 13), max_size=4))
def test_delta_in_pieces(shape: dict[str, Any], cuts: list[int]) -> None:
    tensors, start = _case(shape)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    for core in (delta, hebbian):
        whole = core(**tensors, start=start, tile=4)
        assert_same(piecewise(core, tensors, cuts, start=start, tile=4), whole, tensors, tolerance=1e-10)


@FEW
@given(
    shapes,
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["after", "before", "boundary"]),
    st.sampled_from(["l2", "dot"]),
    st.lists(st.integers(0, 13), max_size=3),
)
def test_frozen_delta_descent_is_the_token_loop(
    shape: dict[str, Any], period: int, tile: int, read: str, objective: str, cuts: list[int]
) -> None:
    tensors, start = _case(shape)
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    options: dict[str, Any] = {"start": start, "objective": objective, "read": read}
    fast = piecewise(delta_frozen, tensors, cuts, period=period, tile=tile, **options)
    anchor = "current" if period == 1 else period
    options["read"] = "before" if (read, period) == ("boundary", 1) else read
    slow = token_loop(**tensors, rule="dgd", anchor=anchor, **options)
    assert_same(fast, slow, tensors | {"start": start})


@FEW
@given(shapes, st.sampled_from(["l2", "dot"]))
def test_delta_fold_serves_stacked_memories(shape: dict[str, Any], objective: str) -> None:
    shape = shape | {"tokens": max(1, shape["tokens"])}
    tensors, _ = _case(shape)
    memories, batch, heads, tokens = 2, shape["batch"], shape["heads"], shape["tokens"]
    running = rand(memories, batch, heads, shape["dim_v"], shape["dim_k"], seed=shape["seed"] + 11)
    target = rand(memories, batch, heads, tokens, shape["dim_v"], seed=shape["seed"] + 12)
    folded = delta_fold(
        running, running, tensors["key"], target, tensors["rate"], tensors["retain"], objective=objective
    )
    for n in range(memories):
        alone: dict[str, Any] = dict(tensors) | {"value": target[n]}
        _, state = token_loop(**alone, start=running[n], rule="dgd", objective=objective, anchor=tokens + 1)
        torch.testing.assert_close(folded[n], state["W"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("core", [hebbian, delta])
def test_gates_that_are_not_given_are_one(core: Any) -> None:
    tensors = inputs(1, 2, 7, 3, 2, seed=5)
    ones = torch.ones_like(tensors["rate"])
    plain = {n: tensors[n] for n in ("query", "key", "value")}
    assert_same(core(**plain), core(**plain, rate=ones, retain=ones), plain)


def test_a_sequence_of_closed_gates_keeps_nothing() -> None:
    tensors = inputs(1, 1, 6, 3, 2, seed=6)
    tensors["retain"] = torch.zeros(1, 1, 6, dtype=torch.float64, requires_grad=True)
    for core, objective in ((hebbian, "dot"), (delta, "l2")):
        assert_same(core(**tensors, tile=4), token_loop(**tensors, objective=objective), tensors)


def test_the_first_normalised_read_before_any_write_is_not_divided() -> None:
    tensors = inputs(1, 1, 3, 2, 2, seed=7)
    read, _ = hebbian(**tensors, normalise=True, read="before")
    assert torch.equal(read[:, :, 0], torch.zeros_like(read[:, :, 0]))
    assert torch.isfinite(read).all()


@FEW
@given(
    shapes, st.one_of(st.none(), st.integers(1, 6)), st.booleans(), st.lists(st.integers(0, 13), max_size=3)
)
def test_attention_is_the_token_loop(
    shape: dict[str, Any], window: int | None, grouped: bool, cuts: list[int]
) -> None:
    tensors = {n: t for n, t in inputs(**shape).items() if n in ("query", "key", "value")}
    if grouped:
        tensors["query"] = rand(
            shape["batch"], 2 * shape["heads"], shape["tokens"], shape["dim_k"], seed=shape["seed"]
        )
    cuts = [min(cut, shape["tokens"]) for cut in cuts]
    fast = piecewise(attention, tensors, cuts, window=window)
    repeated = dict(tensors)
    if grouped:
        repeated |= {n: tensors[n].repeat_interleave(2, dim=1) for n in ("key", "value")}
    slow = token_loop(**repeated, map={"kind": "cache", "window": window}, rule="softmax")
    slow = (slow[0], {n: t[:, :: 2 if grouped else 1] for n, t in slow[1].items()})
    assert_same(fast, slow, tensors)


@pytest.mark.parametrize("core", [hebbian, delta])
def test_half_precision_runs_forward_and_backward(core: Any) -> None:
    tensors = {n: t.detach().bfloat16().requires_grad_() for n, t in inputs(1, 2, 9, 4, 4, seed=8).items()}
    read, _ = core(**tensors, tile=4)
    exact, _ = core(**{n: t.double() for n, t in tensors.items()}, tile=4)
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.double(), exact, rtol=0.1, atol=0.1)
    assert all(
        torch.isfinite(g).all() for g in torch.autograd.grad(read.float().sum(), list(tensors.values()))
    )
