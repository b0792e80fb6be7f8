"""Joins in time, segments, the first tokens that a cache keeps, and reads without writes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nldsl.codegen.engines.attention import attention
from nldsl.codegen.engines.delta import delta
from nldsl.codegen.engines.hebbian import hebbian
from nldsl.codegen.engines.recall import recall
from nldsl.codegen.engines.reference import token_loop
from nldsl.codegen.engines.streams import by_segments, join_streams, last_stream, persistent_tokens
from tests.engines.compare import assert_same, inputs, piecewise, rand

FEW = settings(max_examples=25, deadline=None)


# --------------------------------------------------------------------------- joins


@FEW
@given(st.integers(1, 3), st.integers(0, 5), st.integers(0, 3))
def test_what_was_joined_comes_apart_again(many: int, tokens: int, learned: int) -> None:
    streams = tuple(rand(2, tokens, 4, seed=n) for n in range(many))
    prefix = rand(learned, 4, seed=9) if learned else None
    joined = join_streams(streams, prefix)
    assert joined.shape == (2, learned + many * tokens, 4)
    assert torch.equal(last_stream(joined, many, tokens), streams[-1])
    for t, n in itertools.product(range(tokens), range(many)):
        assert torch.equal(joined[:, learned + many * t + n], streams[n][:, t])


def test_persistent_tokens_are_learned_and_the_same_for_all_sequences() -> None:
    tokens = persistent_tokens(3, 4)
    joined = join_streams((torch.zeros(2, 5, 4),), tokens)
    assert torch.equal(joined[0, :3], tokens)
    assert torch.equal(joined[0], joined[1])
    joined.sum().backward()
    assert tokens.grad is not None


# --------------------------------------------------------------------------- segments


def _sums(
    x: Tensor, inside: dict[str, Any], carried: dict[str, Any]
) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
    """The running sum within a segment, beside the number of all tokens so far."""
    inner = x.cumsum(1) + inside.get("sum", 0)
    count = torch.arange(1, x.shape[1] + 1)[None, :, None] + carried.get("count", 0)
    held = {"sum": inner[:, -1:]} if x.shape[1] else inside
    return (
        torch.cat((inner, count.expand_as(x).to(x)), -1),
        held,
        {"count": carried.get("count", 0) + x.shape[1]},
    )


@FEW
@given(st.integers(1, 7), st.integers(0, 20), st.lists(st.integers(0, 20), max_size=4))
def test_segments_are_the_same_at_any_cut(length: int, tokens: int, cuts: list[int]) -> None:
    x = rand(2, tokens, 3, seed=tokens).detach()
    edges = [0, *sorted(min(cut, tokens) for cut in cuts), tokens]
    state, pieces = None, []
    for begin, end in itertools.pairwise(edges):
        piece, state = by_segments(_sums, (x[:, begin:end],), length, state)
        pieces.append(piece)
    wanted = [x[:, length * (t // length) : t + 1].sum(1) for t in range(tokens)]
    found = torch.cat(pieces, 1)
    assert found.shape == (2, tokens, 6)
    for t in range(tokens):
        torch.testing.assert_close(found[:, t, :3], wanted[t])
        assert bool((found[:, t, 3:] == t + 1).all())
    assert tokens == 0 or (state is not None and int(state["phase"]) == tokens % length)


# --------------------------------------------------------------------------- sinks


@FEW
@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 14), st.lists(st.integers(0, 14), max_size=3))
def test_sinks_stay_visible_behind_the_window(window: int, sinks: int, tokens: int, cuts: list[int]) -> None:
    tensors = {
        n: t for n, t in inputs(2, 2, tokens, 3, 2, seed=tokens).items() if n in ("query", "key", "value")
    }
    cuts = [min(cut, tokens) for cut in cuts]
    fast = piecewise(attention, tensors, cuts, window=window, sinks=sinks)
    spec = {"kind": "cache", "window": window, "sinks": sinks}
    assert_same(fast, piecewise(token_loop, tensors, cuts[:1], map=spec, rule="softmax"), tensors)
    score = tensors["query"] @ tensors["key"].transpose(-1, -2)
    age = torch.arange(tokens)[:, None] - torch.arange(tokens)
    seen = (age >= 0) & ((age < window) | (torch.arange(tokens) < sinks))
    wanted = score.masked_fill(~seen, float("-inf")).softmax(-1) @ tensors["value"]
    torch.testing.assert_close(fast[0], wanted)
    assert fast[1]["key"].shape[2] == min(tokens, sinks + window - 1)


# --------------------------------------------------------------------------- reads without writes

MAPS: list[dict[str, Any]] = [
    {"map": "matrix"},
    {"map": "matrix", "update": 3},
    {"map": "matrix", "normalise": True, "objective": "dot"},
    {"map": "matrix", "anchor": 4, "read": "boundary"},
    {"map": "vector"},
    {"map": {"kind": "mlp", "hidden": 5, "depth": 3, "residual": True, "norm": True}, "anchor": 3},
    {"map": {"kind": "swiglu", "hidden": 4}, "anchor": 2},
]


@pytest.mark.parametrize("core", MAPS, ids=str)
@pytest.mark.parametrize("written", [0, 5])
def test_recall_reads_what_the_token_loop_would_read_next(core: dict[str, Any], written: int) -> None:
    narrow = core["map"] == "vector" or isinstance(core["map"], dict)
    tensors = inputs(2, 2, 8, 4, 4 if narrow else 3, seed=3)
    _, state = token_loop(**{n: t[:, :, :written] for n, t in tensors.items()}, **core)
    at_boundaries = "update" in core or core.get("read") == "boundary"
    before: dict[str, Any] = core if at_boundaries else core | {"read": "before"}
    wanted = []
    for t in range(8):  # a token that writes nothing sees the weights as they are
        one = {n: x[:, :, t : t + 1] for n, x in tensors.items()}
        still = {"rate": torch.zeros_like(one["rate"]), "retain": torch.ones_like(one["retain"])}
        wanted.append(token_loop(**(one | still), state=state, **before)[0])
    asked: dict[str, Any] = {
        "map": core["map"],
        "width": tensors["value"].shape[-1],
        "boundary": "update" in core or core.get("read") == "boundary",
        "normalise": core.get("normalise", False),
    }
    found = recall(tensors["query"], state, **asked)
    torch.testing.assert_close(found, torch.cat(wanted, 2))
    if not written and not core.get("normalise"):
        torch.testing.assert_close(recall(tensors["query"], None, None, **asked), found)


@pytest.mark.parametrize("engine", [hebbian, delta])
def test_recall_takes_the_state_of_an_engine(engine: Any) -> None:
    tensors = inputs(1, 2, 7, 3, 2, seed=5)
    start = rand(2, 2, 3, seed=8)
    _, state = engine(**tensors, start=start)
    found = recall(tensors["query"], state, start, width=2)
    torch.testing.assert_close(found, torch.einsum("bhvk,bhtk->bhtv", state["W"], tensors["query"]))
    begun = recall(tensors["query"], None, start, width=2)
    torch.testing.assert_close(begun, torch.einsum("hvk,bhtk->bhtv", start, tensors["query"]))
    assert torch.autograd.grad(begun.sum(), start)[0].abs().max() > 0


def test_recall_of_a_cache_averages_over_its_pairs() -> None:
    tensors = {n: t for n, t in inputs(2, 2, 6, 3, 4, seed=6).items() if n in ("query", "key", "value")}
    _, state = attention(**tensors, window=4)
    found = recall(tensors["query"], state, map="cache", width=4)
    share = (tensors["query"] @ tensors["key"][:, :, 3:].transpose(-1, -2)).softmax(-1)
    torch.testing.assert_close(found, share @ tensors["value"][:, :, 3:])
    assert torch.equal(
        recall(tensors["query"], None, map="cache", width=4), torch.zeros_like(tensors["value"])
    )
