"""Instances, segments and joined streams against loops written by hand over the token loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nldsl.codegen.engines.parts import rotary, split_heads, unit
from nldsl.codegen.engines.reference import token_loop
from tests.codegen.building import built, feature, gallery, streamed, tokens, written

STREAMS = ("apart_sequence", "let_shared", "segments_inside", "streams_context", "streams_gate")
DEEP: dict[str, Any] = {
    "map": {"kind": "mlp", "hidden": 4, "residual": True},
    "anchor": 4,
    "momentum": torch.full((1, 2, 1), 0.5, dtype=torch.float64),
}


@pytest.mark.parametrize("name", STREAMS)
def test_engines_agree_with_the_token_loop(name: str) -> None:
    fast, slow = built(feature(name)), built(feature(name), "reference")
    ids = tokens(fast, 21)
    with torch.no_grad():
        torch.testing.assert_close(fast(ids)[0], slow(ids)[0], rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_streaming_equals_whole_at_any_cut(name: str, cuts: list[int]) -> None:
    model = built(feature(name))
    ids = tokens(model, sum(cuts))
    with torch.no_grad():
        whole, last = model(ids)
        pieces, state = streamed(model, ids, tuple(cuts))
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)
    if cuts[0]:
        assert _shapes(state) == _shapes(last)


@pytest.mark.parametrize("name", STREAMS)
def test_sequences_of_a_batch_do_not_meet(name: str) -> None:
    model = built(feature(name))
    ids = tokens(model, 19)
    with torch.no_grad():
        torch.testing.assert_close(model(ids[1:])[0], model(ids)[0][1:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", STREAMS)
def test_no_token_sees_a_later_one(name: str) -> None:
    model = built(feature(name))
    ids = tokens(model, 12, batch=1)
    with torch.no_grad():
        whole, _ = model(ids)
        for t in range(1, 12):
            other = ids.clone()
            other[:, t] = (other[:, t] + 1) % 12
            torch.testing.assert_close(model(other)[0][:, :t], whole[:, :t], rtol=1e-12, atol=1e-12)


def test_memory_as_context_is_the_loop_written_by_hand() -> None:
    model = built(feature("streams_context"))
    block, ids = model.context, tokens(model, 19)
    with torch.no_grad():
        x = model.embed(ids)
        wanted = model.unembed(model.norm(by_hand(block, x, segment=8)))
        torch.testing.assert_close(model(ids)[0], wanted)


def by_hand(block: Any, x: Tensor, segment: int) -> Tensor:
    """Titans' memory as context, segment by segment and token by token."""
    m, batch = block.m, x.shape[0]
    core: dict[str, Tensor] | None = None
    conv: dict[str, Tensor | None] = dict.fromkeys(("key", "recall", "read"))
    start = {"W1": m.start[0], "W2": m.start[1]}
    results = []

    def query(z: Tensor, side: str) -> Tensor:
        turned, conv[side] = m.query_conv(m.query_linear(z), conv[side])
        return unit(split_heads(turned, 2))

    def out(read: Tensor, z: Tensor) -> Tensor:
        normed = m.out_norm(read).transpose(1, 2).flatten(2)
        return normed * torch.nn.functional.silu(m.out_linear(z))

    for piece in x.split(segment, dim=1):
        asked = block.linear(piece)
        recalled = out(_still(query(asked, "recall"), core, start, batch), asked)
        listed = [block.persistent.expand(batch, -1, -1)]
        for t in range(piece.shape[1]):
            listed += [recalled[:, t : t + 1], piece[:, t : t + 1]]
        attended = _attention(block.softmax_attention, torch.cat(listed, 1))
        y = attended[:, block.persistent.shape[0] + 1 :: 2]
        turned, conv["key"] = m.key_conv(m.key_linear(y), conv["key"])
        read, core = token_loop(
            query(y, "read"),
            unit(split_heads(turned, 2)),
            unit(split_heads(m.value_linear(y), 2)),
            (m.rate_linear(y).sigmoid() * 0.1).transpose(1, 2),
            momentum=DEEP["momentum"].expand(batch, -1, y.shape[1]),
            map=DEEP["map"],
            anchor=DEEP["anchor"],
            start=start,
            state=core,
        )
        results.append(y * out(read, y).sigmoid())
    return torch.cat(results, 1)


def _still(query: Tensor, core: dict[str, Tensor] | None, start: dict[str, Tensor], batch: int) -> Tensor:
    """z + W2 gelu(W1 z) at the weights as they are."""
    w = core or {n: one.expand(batch, -1, -1, -1) for n, one in start.items()}
    hidden = torch.nn.functional.gelu(query @ w["W1"].transpose(-1, -2))
    return query + hidden @ w["W2"].transpose(-1, -2)


def _attention(one: Any, x: Tensor) -> Tensor:
    """Causal softmax attention with rotary positions."""
    key, query = (rotary(split_heads(f(x), 2), 0, 10_000) for f in (one.key_linear, one.query_linear))
    score = query @ key.transpose(-1, -2) / (x.shape[-1] // 2) ** 0.5
    score = score.masked_fill(torch.ones(score.shape[-2:]).triu(1).bool(), float("-inf"))
    read = score.softmax(-1) @ split_heads(one.value_linear(x), 2)
    return one.out_linear(read.transpose(1, 2).flatten(2))


def test_what_is_shared_has_one_set_of_weights_and_a_state_at_each_place() -> None:
    model = built(feature("let_shared"))
    names = [n for n, _ in model.named_parameters() if ".m." in n]
    assert len(names) == len({n.split(".m.")[1] for n in names}) > 0
    _, state = model(tokens(model, 5))
    first, second = state["tied"]["m"]["core"]["W"], state["tied"]["m_2"]["core"]["W"]
    assert not torch.equal(first, second)


def test_what_a_segment_found_is_kept_beside_what_it_writes() -> None:
    model = built(feature("streams_context"))
    ids = tokens(model, 11)
    _, at_boundary = model(ids[:, :8])
    _, inside = model(ids[:, 8:], at_boundary)
    before = inside["context"]["segments"]["inside"]["m_before"]["W1"]
    assert torch.equal(before, at_boundary["context"]["segments"]["carried"]["m"]["W1"])
    assert not torch.equal(before, inside["context"]["segments"]["carried"]["m"]["W1"])


def test_classes_are_written_once() -> None:
    text = written(feature("let_shared")).text
    assert text.count("class Delta(") == 1


def _shapes(state: Any) -> Any:
    if isinstance(state, Tensor):
        return tuple(state.shape)
    if isinstance(state, dict):
        return {n: _shapes(v) for n, v in state.items()}
    return [_shapes(v) for v in state] if isinstance(state, list | tuple) else state


@pytest.mark.parametrize("name", ["apart_sequence", "let_shared", "streams_context", "streams_gate"])
def test_the_level_graph_counts_state_and_parameters(name: str) -> None:
    spec, model = feature(name), built(feature(name))
    graph = spec.levels()
    _, state = model(tokens(model, graph.facts["sequence"], batch=1))
    said = sum(one.state_bytes * one.copies for one in graph.components if one.per_sequence) // 4
    assert sum(x.numel() for x in _leaves(state) if x.is_floating_point()) == said
    assert sum(x.numel() for x in model.parameters()) == graph.parameters


@pytest.mark.parametrize("name", ["titans_mac", "titans_mag", "titans_mal"])
def test_the_models_of_the_library_stream(name: str) -> None:
    model = built(gallery(name))
    ids = tokens(model, 70)
    with torch.no_grad():
        whole, _ = model(ids)
        pieces, _ = streamed(model, ids, (1, 62, 2, 5))
        torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-9)
        other = ids.clone()
        other[:, 66] = (other[:, 66] + 1) % 256
        torch.testing.assert_close(model(other)[0][:, :66], whole[:, :66], rtol=1e-12, atol=1e-12)


def _leaves(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [x for one in inner for x in _leaves(one)]
